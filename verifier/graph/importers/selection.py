"""Choosing, repeating and joining entries along axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call, axes_of, axis_of
from verifier.graph.faults import Invalid, Unsupported, require_size
from verifier.graph.importers.registry import Importer


def _concat(call: Call, build: Builder) -> Activation:
    parts = []
    for i, value in enumerate(call.inputs):
        parts.append(value if isinstance(value, Activation) else build.constant(call.weight(i)))
    if "axis" not in call.attributes:
        raise Invalid("its attribute axis is missing")
    axis = axis_of(int(call.attributes["axis"]), parts[0].rank)
    return build.emit("concat", *parts, attributes={"axis": axis})


def _slice(call: Call, build: Builder) -> Activation:
    """Python's slices clamp as ONNX's do, also for negative steps."""
    x = call.activation()
    starts, ends = call.integers("starts", 1, since=10), call.integers("ends", 2, since=10)
    if starts is None or ends is None:
        raise Invalid("its starts or ends are missing")
    axes = call.integers("axes", 3, since=10) or tuple(range(len(starts)))
    steps = call.integers("steps", 4, since=10) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Invalid("its starts, ends, axes and steps do not belong together")
    axes_of(axes, x.rank)  # none may repeat
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis, x.rank)
        chosen = slice(start, end, step).indices(x.shape[axis])
        x = build.take(x, axis, np.arange(*chosen))
    return x


def _split(call: Call, build: Builder) -> tuple[Activation, ...]:
    x = call.activation()
    axis = axis_of(int(call.attributes.get("axis", 0)), x.rank)
    size, parts = x.shape[axis], len(call.outputs)
    sizes = call.integers("split", 1, since=13)
    if sizes is None:
        parts = int(call.attributes.get("num_outputs", parts)) if call.opset >= 18 else parts
        if call.opset < 18 and size % parts:
            raise Invalid(f"axis {axis} of the shape {list(x.shape)} cannot be split into {parts} equal parts")
        chunk = -(-size // parts)
        sizes = (*(chunk,) * (parts - 1), size - chunk * (parts - 1))
    if sum(sizes) != size or min(sizes) < 1 or len(sizes) != len(call.outputs):
        raise Invalid(f"the parts {list(sizes)} do not make up axis {axis} of the shape {list(x.shape)}")
    ends = np.cumsum(sizes)
    return tuple(build.take(x, axis, np.arange(end - n, end)) for n, end in zip(sizes, ends, strict=True))


def _gather(call: Call, build: Builder) -> Activation:
    x, indices = call.activation(), call.constant(1)
    if indices.dtype.kind not in "iu":
        raise Invalid(f"its input '{call.input_names[1]}' holds no integers")
    axis = axis_of(int(call.attributes.get("axis", 0)), x.rank)
    size = x.shape[axis]
    if indices.size and not -size <= indices.min() <= indices.max() < size:
        raise Invalid(f"its indices leave axis {axis} of the shape {list(x.shape)}")
    y = build.take(x, axis, indices.reshape(-1).astype(np.int64) % size)
    return build.reshape(y, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _tile(call: Call, build: Builder) -> Activation:
    x, repeats = call.activation(), call.integers("repeats", 1, since=6)
    if repeats is None or len(repeats) != x.rank:
        raise Invalid(f"it needs one repeat for each axis of the shape {list(x.shape)}")
    for axis, count in enumerate(repeats):
        if count != 1:
            require_size((*x.shape, count), "its output")
            x = build.take(x, axis, np.tile(np.arange(x.shape[axis]), count))
    return x


def _pad(call: Call, build: Builder) -> Activation:
    x, mode = call.activation(), call.text("mode", "constant")
    pads = _pads(call, x)
    crops = [(max(0, -before), max(0, -after)) for before, after in pads]
    pads = [(max(0, before), max(0, after)) for before, after in pads]
    if mode != "constant":
        if any(map(any, crops)):
            raise Unsupported(f"it has negative pads in mode {mode}")
        return _copied(x, pads, mode, build)
    for axis, (before, after) in enumerate(crops):
        if before or after:
            x = build.take(x, axis, np.arange(before, x.shape[axis] - after))
    return build.pad(x, pads, _pad_value(call)) if any(map(any, pads)) else x


def _pads(call: Call, x: Activation) -> list[tuple[int, int]]:
    """(before, after) of every axis."""
    flat = call.integers("pads", 1, since=11)
    axes = call.integers("axes", 3, since=18) if call.opset >= 18 else None
    axes = tuple(range(x.rank)) if axes is None else tuple(axis_of(axis, x.rank) for axis in axes)
    axes_of(axes, x.rank)  # none may repeat
    if flat is None or len(flat) != 2 * len(axes):
        raise Invalid(f"it needs two pads for each of {len(axes)} axes")
    pads = [(0, 0)] * x.rank
    for axis, before, after in zip(axes, flat[: len(axes)], flat[len(axes) :], strict=True):
        pads[axis] = (before, after)
    return pads


def _pad_value(call: Call) -> float:
    if call.opset < 11:
        value = np.asarray(float(call.attributes.get("value", 0.0)))
    else:
        value = call.weight(2) if call.has(2) else np.zeros(1)
    if value.size != 1 or not np.isfinite(value).all():
        raise Unsupported("its padding value is not one finite number")
    return float(value.reshape(-1)[0])


def _copied(x: Activation, pads: list[tuple[int, int]], mode: str, build: Builder) -> Activation:
    """Padding with copies of entries of x."""
    if mode not in ("edge", "reflect", "wrap"):
        raise Unsupported(f"its mode is {mode!r}")
    for axis, (before, after) in enumerate(pads):
        size = x.shape[axis]
        most = {"edge": max(before, after), "reflect": size - 1, "wrap": size}[mode]
        if max(before, after) > most:
            raise Unsupported(f"it pads axis {axis} of size {size} by {max(before, after)} in mode {mode}")
        if before or after:
            require_size((*x.shape[:axis], size + before + after, *x.shape[axis + 1 :]), "its output")
            x = build.take(x, axis, np.pad(np.arange(size), (before, after), mode=mode))  # type: ignore[call-overload]
    return x


IMPORTERS: Mapping[str, Importer] = {
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
}
