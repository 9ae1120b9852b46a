"""The one exception that bad input raises."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used, said in one sentence.

    Args:
        where: the file (and line, node or flag) at fault.
        what: what is wrong there.
        mend: what the reader can do about it.

    The command line prints ``where: what; mend`` on one line and exits with status 2.
    """

    def __init__(self, where: str, what: str, mend: str = ""):
        self.where, self.what, self.mend = where, what, mend
        super().__init__(f"{where}: {what}" + (f"; {mend}" if mend else ""))
