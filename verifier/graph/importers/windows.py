"""Geometry of sliding windows, which convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported, require_size

#: the most entries of all windows along one axis together, which pools list one by one
_MAX_TABLE = 2**24


@dataclass(frozen=True)
class Window:
    """Windows along one axis.

    Args:
        size: of the input.
        kernel, stride, dilation: of the window.
        before, after: padding.
        count: number of windows.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count: int

    @property
    def overhang(self) -> int:
        """Positions that the last window reaches beyond the padded input, which happens in ceil mode."""
        reach = (self.count - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return max(0, reach - self.before - self.size - self.after)


def spatial_rank(x: Activation) -> int:
    """Number of spatial axes of (N, C, *spatial)."""
    if x.rank < 3:
        raise Invalid(f"its input of shape {list(x.shape)} has no spatial axes")
    return x.rank - 2


def setting(call: Call, name: str, default: int, count: int) -> tuple[int, ...]:
    """An attribute with one non-negative integer per spatial axis (or twice that for pads)."""
    values = tuple(int(v) for v in call.attributes.get(name, ())) or (default,) * count
    if len(values) != count:
        raise Invalid(f"its attribute {name} has {len(values)} entries instead of {count}")
    if min(values) < default:
        raise Unsupported(f"its attribute {name} is {list(values)}")
    return values


def windows(call: Call, x: Activation, kernel: Sequence[int]) -> tuple[Window, ...]:
    """The windows of a convolution or pool along each spatial axis, with ``auto_pad`` and ``ceil_mode`` resolved."""
    rank = spatial_rank(x)
    if len(kernel) != rank:
        raise Invalid(f"a kernel in {len(kernel)} dimensions over an input in {rank}")
    strides, dilations = setting(call, "strides", 1, rank), setting(call, "dilations", 1, rank)
    pads = setting(call, "pads", 0, 2 * rank)
    mode, ceil = call.text("auto_pad", "NOTSET"), bool(call.attributes.get("ceil_mode", 0))
    if mode.startswith("SAME") and max(dilations) > 1:
        raise Unsupported("runtimes differ on auto_pad with dilations, state pads instead")
    axes = zip(x.shape[2:], kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    result = tuple(_window(mode, ceil, *axis) for axis in axes)
    for window in result:
        require_size((window.count, window.kernel), "the table of its windows", limit=_MAX_TABLE)
    return result


def _window(
    mode: str, ceil: bool, size: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> Window:
    reach = (kernel - 1) * dilation + 1
    if mode == "VALID":
        before = after = 0
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
        ceil = False
    elif mode != "NOTSET":
        raise Invalid(f"its attribute auto_pad is {mode!r}")
    room = size + before + after - reach
    if room < 0:
        raise Invalid(f"a window that reaches over {reach} entries does not fit into {size + before + after}")
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + before:  # a window may not start in the padding at the end
        count -= 1
    return Window(size, kernel, stride, dilation, before, after, count)
