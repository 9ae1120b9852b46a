"""The one exception that bad input raises, and how one sees that memory has run out."""

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


#: how libraries say that memory ran out, by a plain `RuntimeError`: torch, CUDA, onnxruntime, and oneDNN, which names
#: the primitive that it had no memory for
_COMPLAINTS = (
    *("allocate memory", "not enough memory", "out of memory", "alloc_failed", "bad allocation", "bad_alloc"),
    *("could not create a primitive", "could not create a memory"),
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    said = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _COMPLAINTS)
    return isinstance(error, MemoryError) or said
