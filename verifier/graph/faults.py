"""What can be wrong with one node or tensor while a file is read; the reader turns these into `InputError`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

#: the most entries that any one tensor may have: one GiB in float64
MAX_ELEMENTS = 2**27


class Unsupported(Exception):
    """A node that the file may contain but that this project cannot read; all of them are reported together."""


class Invalid(Exception):
    """A node or tensor that no ONNX file may contain, or that is refused outright.

    Args:
        what: what is wrong, without its place.
        mend: what the reader can do about it.
    """

    def __init__(self, what: str, mend: str = "export the network again"):
        self.what, self.mend = what, mend
        super().__init__(what)


def require_size(shape: Sequence[int], what: str = "a tensor", limit: int = MAX_ELEMENTS) -> None:
    """Refuse a shape of more than `limit` entries; to be called before anything of that shape is made."""
    if any(size < 0 for size in shape):
        raise Invalid(f"{what} has the negative size {min(shape)}")
    if prod(shape) > limit:
        raise Invalid(
            f"{what} of shape {list(shape)} would have {prod(shape):,} entries, more than the {limit:,} allowed",
            "give a smaller network",
        )
