"""Convolutions and their transposes, in one to three spatial dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.importers.registry import Importer
from verifier.graph.importers.windows import setting, spatial_rank, windows


def _weights(call: Call, x: Activation) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Weight, bias and groups."""
    rank, weight = spatial_rank(x), call.weight(1)
    if weight.ndim != rank + 2:
        raise Invalid(f"a weight of shape {list(weight.shape)} for an input of shape {list(x.shape)}")
    if rank > 3:
        raise Unsupported(f"a convolution in {rank} dimensions")
    stated = tuple(call.attributes.get("kernel_shape", weight.shape[2:]))
    if stated != weight.shape[2:]:
        raise Invalid(f"its kernel_shape {list(stated)} is not that of its weight, {list(weight.shape[2:])}")
    return weight, call.weight(2) if call.has(2) else None, int(call.attributes.get("group", 1))


def padded(
    x: Activation, before: Sequence[int], after: Sequence[int], build: Builder
) -> tuple[Activation, tuple[int, ...]]:
    """x and the symmetric padding that a convolution shall add; any other padding is added to x."""
    if tuple(before) == tuple(after):
        return x, tuple(before)
    return build.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True))), (0,) * len(before)


def _conv(call: Call, build: Builder) -> Activation:
    x = call.activation()
    weight, bias, groups = _weights(call, x)
    along = windows(call, x, weight.shape[2:])
    x, padding = padded(x, [w.before for w in along], [w.after for w in along], build)
    return build.conv(
        "conv",
        x,
        weight,
        bias,
        stride=[w.stride for w in along],
        padding=padding,
        dilation=[w.dilation for w in along],
        groups=groups,
    )


def _conv_transpose(call: Call, build: Builder) -> Activation:
    x = call.activation()
    weight, bias, groups = _weights(call, x)
    rank = x.rank - 2
    strides, dilations = setting(call, "strides", 1, rank), setting(call, "dilations", 1, rank)
    extra = setting(call, "output_padding", 0, rank)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise Unsupported(f"its output_padding {list(extra)} is not smaller than its strides or dilations")
    sizes = zip(x.shape[2:], weight.shape[2:], strides, dilations, extra, strict=True)
    full = tuple((size - 1) * s + (k - 1) * d + 1 + e for size, k, s, d, e in sizes)
    before, after = _crops(call, x, full, strides)
    padding = tuple(min(pair) for pair in zip(before, after, strict=True))
    y = build.conv(
        "conv_transpose",
        x,
        weight,
        bias,
        stride=strides,
        padding=padding,
        dilation=dilations,
        groups=groups,
        output_padding=extra,
    )
    for axis, (first, last, both) in enumerate(zip(before, after, padding, strict=True), start=2):
        if first != last:
            y = build.take(y, axis, np.arange(first - both, y.shape[axis] - (last - both)))
    return y


def _crops(
    call: Call, x: Activation, full: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much of the full output is cut off before and after, along each spatial axis."""
    rank, mode = len(full), call.text("auto_pad", "NOTSET")
    wanted = tuple(int(v) for v in call.attributes.get("output_shape", ()))
    if not wanted and mode in ("NOTSET", "VALID"):
        pads = setting(call, "pads", 0, 2 * rank) if mode == "NOTSET" else (0,) * 2 * rank
        return pads[:rank], pads[rank:]
    if not wanted:
        wanted = tuple(size * stride for size, stride in zip(x.shape[2:], strides, strict=True))
    totals = tuple(size - want for size, want in zip(full, wanted[-rank:], strict=True))
    if min(totals) < 0:
        raise Unsupported(f"an output of {list(wanted)} is larger than its kernel reaches, {list(full)}")
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (small, large) if mode == "SAME_UPPER" else (large, small)


IMPORTERS: Mapping[str, Importer] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
