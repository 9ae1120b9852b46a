"""Whether a property is well-formed and fits a network; dataclasses made by hand check nothing themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch

from verifier.errors import InputError
from verifier.specs.box import check_bounds
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Box, LpBall, Region, stack


def fit(prop: Property, shape: tuple[int, ...], outputs: int, where: str) -> Property:
    """The property with its region in the network's input shape.

    Args:
        prop: as made by hand or read from a file.
        shape: of the network's input.
        outputs: number of the network's outputs.
        where: what messages call the property.

    Raises:
        InputError: the region is empty, not finite, not float64, not of batch size 1 or of another size than the
            input; or there is no polytope, or one without rows, of other sizes, not float64 or not finite.
    """
    return fit_all((prop,), shape, outputs, (where,))[0]


def fit_all(
    props: Sequence[Property], shape: tuple[int, ...], outputs: int, names: Sequence[str]
) -> tuple[Property, ...]:
    """`fit` of each of many properties: bounds are looked at in one go, and polytopes that they share once."""
    inputs, seen = prod(shape), set[int]()
    together = len(props) > 1 and _sound_together([prop.region for prop in props])
    for prop, where in zip(props, names, strict=True):
        if not together:
            _check_tensors(prop.region, where)
            _check_values(prop.region, where)
        size = _size(prop.region)
        if size != inputs:
            what = f"speaks of {size} inputs, the network has {inputs}"
            raise InputError(where, what, "use the specification of this network")
        if id(prop.unsafe) not in seen:
            _check_polytopes(prop.unsafe, outputs, where)
            seen.add(id(prop.unsafe))
    return tuple(replace(prop, region=prop.region.reshape(shape)) for prop in props)


def _sound_together(regions: Sequence[Region]) -> bool:
    """Whether regions of one kind and shape are all well-formed; if not, a look at each tells what is wrong where."""
    try:
        if len({_check_tensors(region, "") for region in regions}) > 1:
            return False
        _check_values(stack(regions), "")
    except InputError:
        return False
    return True


def _check_tensors(region: Region, where: str) -> tuple[torch.Size, ...]:
    """The shapes of a region's tensors."""
    tensors = tuple(_tensors(region))
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64 or tensor.dim() == 0:
            what = "a region is not made of float64 torch tensors with a batch axis"
            raise InputError(where, what, "make it of tensors (1, *X) of dtype torch.float64")
    if region.batch != 1:
        raise InputError(where, f"a region holds {region.batch} input sets", "make one property of each")
    return tuple(tensor.shape for tensor in tensors)


def _check_values(region: Region, where: str) -> None:
    if isinstance(region, LpBall):
        LpBall.checked(region.center, region.radius, region.box, region.norm, where)
        inner = region.inner_radius
        if inner is not None and (inner.shape != region.radius.shape or not bool((inner <= region.radius).all())):
            raise InputError(where, "the inner radius exceeds the radius", "give one that is at most the radius")
    box = region.box if isinstance(region, LpBall) else region.enclosing_box()
    check_bounds(box.lower, box.upper, where)
    if box.inner_lower is not None:
        check_bounds(box.lower, box.inner_lower, where, "the inner bounds exceed the bounds")
    if box.inner_upper is not None:
        check_bounds(box.inner_upper, box.upper, where, "the inner bounds exceed the bounds")


def _size(region: Region) -> int:
    """Numbers of one input."""
    return prod((region.center if isinstance(region, LpBall) else region.enclosing_box().lower).shape[1:])


def _tensors(region: Region) -> Iterator[Any]:
    """Every field of a region that has to be a tensor."""
    if isinstance(region, LpBall):
        yield from (region.center, region.radius)
        yield from () if region.inner_radius is None else (region.inner_radius,)
    box = region.box if isinstance(region, LpBall) else region
    if isinstance(box, Box):
        yield from (box.lower, box.upper)
        yield from (inner for inner in (box.inner_lower, box.inner_upper) if inner is not None)


def _arrays(polytope: Polytope) -> tuple[np.ndarray, ...]:
    inner = () if polytope.d_inner is None else (polytope.d_inner,)
    return (polytope.C, polytope.d, *inner)


def _check_polytopes(unsafe: tuple[Polytope, ...], outputs: int, where: str) -> None:
    if not unsafe:
        raise InputError(where, "a property has no unsafe polytope", "give it at least one")
    for polytope in unsafe:
        _check_polytope(polytope, outputs, where)
    # all in one go: a thousand polytopes are a common case
    if not np.isfinite(np.concatenate([array.ravel() for one in unsafe for array in _arrays(one)])).all():
        raise InputError(where, "a polytope holds NaN or infinite numbers", "replace them by numbers")


def _check_polytope(polytope: Polytope, outputs: int, where: str) -> None:
    matrix, *limits = _arrays(polytope)
    for array in (matrix, *limits):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            raise InputError(where, "a polytope is not made of float64 numpy arrays", "make C and d such arrays")
    if matrix.ndim != 2 or any(limit.shape != matrix.shape[:1] for limit in limits):
        shapes = f"C of shape {polytope.C.shape} and d of shape {polytope.d.shape}"
        raise InputError(where, f"a polytope has {shapes}", "give C (rows, outputs) and d (rows,)")
    rows, columns = matrix.shape
    if columns != outputs:
        what = f"speaks of {columns} outputs, the network has {outputs}"
        raise InputError(where, what, "use the specification of this network")
    if rows == 0:
        raise InputError(where, "a polytope has no rows, so every output lies in it", "give it at least one row")
    if polytope.d_inner is not None and (polytope.d_inner > polytope.d).any():
        raise InputError(where, "the inner d of a polytope exceeds its d", "give one that is at most d")
