"""Pictures of a network's output: what each method leaves of two outputs, and its bound of the margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np
import torch

from verifier.analysis.pictures.marks import COLOURS, Mark, Picture, Window
from verifier.analysis.pictures.plane import clip, directions, from_support, hull, inside, rectangle, window
from verifier.analysis.pictures.subject import Subject, sampled, scaled
from verifier.attacks.pgd import PgdOptions, pgd
from verifier.bounding.ladder import LadderOptions
from verifier.pipeline import bounds
from verifier.specs.property import Polytope, Property

#: directions in which two outputs are bounded
DIRECTIONS = 64
#: what reaches farther than so many times the extent of the rest is cut off
FARTHEST = 3.0
#: share of a polygon's extent that one can see
VISIBLE = 3e-3
BOUNDARY, UNSAFE = "decision boundary", "unsafe side"
SAMPLES, INNER, GAP = "sampled outputs", "hull of the samples", "not decided"


def logits(
    about: Subject, pair: tuple[int, int], methods: Sequence[str], ladder: LadderOptions, view: Window | None = None
) -> Picture:
    """Polygons around all values of two outputs, one for each method, with samples and the decision boundary.

    A polygon is cut out by lower bounds of ``<d, y>`` in `DIRECTIONS` directions d.

    Args:
        view: what to show; None for everything.
    """
    reached = sampled(about, about.graph.output, pair)
    polygons = {method: polygon(about, pair, method, ladder, reached) for method in methods}
    view = _view(about.prop, pair, [reached, *polygons.values()]) if view is None else view
    boundaries = _boundaries(about.prop, pair, view)
    beyond = [name for name, points in polygons.items() if (np.ptp(points, axis=0) > np.ptp(view, axis=1)).any()]
    return Picture(
        "logits",
        f"Outputs {pair[0]} and {pair[1]}",
        f"Each polygon holds all values of both outputs: {DIRECTIONS} support functions, bounded by one method."
        + (" One that misses the unsafe side proves it out of reach." if boundaries else "")
        + (f" Beyond the view: {', '.join(beyond)}." if beyond else "")
        + "".join(f" Alike: {', '.join(names)}." for names in _alike(polygons)),
        f"output {pair[0]}",
        f"output {pair[1]}",
        (
            *boundaries,
            *(
                Mark("area", name, role(name), points, width=1.4 + 0.6 * behind)
                for behind, (name, points) in zip(range(len(polygons) - 1, -1, -1), polygons.items(), strict=True)
            ),
            Mark("area", INNER, "network", hull(reached)),
            Mark("cloud", SAMPLES, "network", reached),
        ),
        view,
    )


def polygon(
    about: Subject, pair: tuple[int, int], method: str, ladder: LadderOptions, reached: np.ndarray
) -> np.ndarray:
    """The polygon that a method's lower bounds of ``<d, y>`` cut out.

    Args:
        reached: (N, 2) some values of the outputs.
    """
    normals = directions(DIRECTIONS)
    rows = np.zeros((DIRECTIONS, int(np.prod(about.graph.output_shape))))
    rows[:, pair] = normals
    unsafe = tuple(Polytope(row[None], np.zeros(1)) for row in rows)
    return from_support(-normals, -_uncut(about, unsafe, (reached @ normals.T).min(0), method, ladder))


def _uncut(
    about: Subject, unsafe: tuple[Polytope, ...], reached: np.ndarray, method: str, ladder: LadderOptions
) -> np.ndarray:
    """A method's bounds (P,) of the margins to unsafe polytopes, where margins `reached` (P,) are known to occur.

    A method that proves its property stops there. So every polytope is moved as far out as to be reached, which
    leaves nothing to prove, and the bounds are moved back. Those that exceed `reached` come out as `reached`.
    """
    shift = reached + 1e-3 * (1 + np.abs(reached))
    moved = tuple(Polytope(p.C, p.d + s) for p, s in zip(unsafe, shift, strict=True))
    options = {"dtype": torch.float64, "device": about.device, "seed": about.seed, "ladder": ladder}
    (margins,) = bounds(about.graph, Property(about.prop.region, moved), method, **options)
    return margins.detach().cpu().numpy() + shift


def waterfall(about: Subject, methods: Sequence[str], ladder: LadderOptions) -> Picture:
    """Bounds of the property's margin, method by method, and the least margin that an attack found."""
    attacked = pgd(about.placed, about.prop, PgdOptions(seed=about.seed)).margin
    reached, found, seconds = np.full(len(about.prop.unsafe), attacked), [], []
    for method in methods:
        begun = monotonic()
        found.append(float(_uncut(about, about.prop.unsafe, reached, method, ladder).min()))
        seconds.append(monotonic() - begun)
    left, right = _range(found, attacked)
    marks, best = [], left
    for row, (method, bound, took) in enumerate(zip(methods, found, seconds, strict=True)):
        end, cut = max(bound, left), ", off the scale" if bound < left else ""
        marks.append(_bar(method, role(method), min(best, end), end, row, f"{bound:.4g} ({took:.2g} s{cut})"))
        best = max(best, end)
    marks.append(_bar(GAP, "network", best, max(attacked, best), len(methods), f"attack {attacked:.4g}"))
    rows = (*methods, "not decided")
    view = ((left, right), (0.4 - len(rows), 0.6))
    level = np.array([[0.0, view[1][0]], [0.0, view[1][1]]])
    return Picture(
        "waterfall",
        "Margin to the unsafe set",
        "What each method adds to the certified lower bound, which is a proof where it is positive. No method can get "
        "beyond the margin that an attack reached.",
        "certified margin, in units of the outputs",
        "",
        (*marks, Mark("curve", "proved from here on", "unsafe", level, dashed=True)),
        view,
        rows=rows,
    )


def default_pair(about: Subject) -> tuple[int, int] | None:
    """The two outputs of the row that CROWN proves least of; None for a network of one output.

    A row of one output, or of more than two, takes those of the largest coefficients, and the first others.
    """
    outputs = int(np.prod(about.graph.output_shape))
    if outputs < 2:
        return None
    (margins,) = bounds(about.graph, about.prop, "crown", dtype=torch.float64, device=about.device)
    row = about.prop.unsafe[int(margins.argmin())].C[0]
    first, second = np.argsort(-np.abs(row), kind="stable")[:2].tolist()
    return (first, second) if row[first] > 0 or row[second] == 0 else (second, first)


def shrunk(about: Subject, share: float) -> Subject:
    """The same network over a smaller set."""
    return Subject(about.graph, about.placed, scaled(about.prop, share), about.device, about.seed)


def role(method: str) -> str:
    """The role, and so the colour, of a method."""
    return method if method in COLOURS else "other"


def _bar(label: str, role: str, start: float, end: float, row: int, note: str) -> Mark:
    return Mark("bar", label, role, np.array([[start, -row - 0.32], [end, -row + 0.32]]), note=note)


def _range(found: Sequence[float], attacked: float) -> tuple[float, float]:
    """What of the axis is shown: zero, the attack's margin, the best bound, and of the others what is near."""
    best = max(found)
    low, high = min(0.0, attacked, best), max(0.0, attacked, best)
    for value in sorted(found, reverse=True):
        if value >= low - FARTHEST * (high - low):
            low = min(low, value)
    room = max(high - low, 1e-9)
    return low - 0.08 * room, high + 0.35 * room


def _rows(prop: Property, pair: tuple[int, int]) -> list[tuple[np.ndarray, float]]:
    """Unsafe half planes ``<row, p> <= limit``: polytopes of a single row that speaks of these two outputs alone."""
    alone = [p for p in prop.unsafe if len(p.d) == 1 and not np.delete(p.C[0], pair).any()]
    return [(p.C[0][list(pair)], float(p.d[0])) for p in alone]


def _alike(polygons: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Methods, two or more, whose polygons are the same as far as one can see."""
    groups: list[list[str]] = []
    for name, points in polygons.items():
        for group in groups:
            first = polygons[group[0]]
            if inside(points, first, VISIBLE).all() and inside(first, points, VISIBLE).all():
                group.append(name)
                break
        else:
            groups.append([name])
    return [group for group in groups if len(group) > 1]


def _view(prop: Property, pair: tuple[int, int], clouds: Sequence[np.ndarray]) -> Window:
    """What to show of polygons and samples: all but what is `FARTHEST` larger than the smallest polygon, and
    boundaries that are near."""
    sizes = [np.ptp(cloud, axis=0).max() for cloud in clouds]
    near = [cloud for cloud, size in zip(clouds, sizes, strict=True) if size <= (1 + FARTHEST) * min(sizes[1:])]
    points = np.concatenate(near)
    return window(np.concatenate([points, *_near_boundaries(prop, pair, points)]))


def _near_boundaries(prop: Property, pair: tuple[int, int], points: np.ndarray) -> list[np.ndarray]:
    """Points (1, 2) on boundaries that are no farther from points than these are from each other."""
    found = []
    for row, limit in _rows(prop, pair):
        beyond = points @ row - limit
        nearest = points[beyond.argmin()] - row * beyond.min() / (row @ row)
        if 0 < beyond.min() and np.linalg.norm(nearest - points, axis=1).min() <= np.ptp(points, axis=0).max():
            found.append(nearest[None] - 0.05 * row * np.ptp(points, axis=0).max() / np.linalg.norm(row))
    return found


def _boundaries(prop: Property, pair: tuple[int, int], view: Window) -> list[Mark]:
    """What of the unsafe half planes is in view, and where they end."""
    (x, X), (y, Y) = view
    whole, marks = rectangle(np.array([x, y]), np.array([X, Y])), []
    for row, limit in _rows(prop, pair):
        beyond = clip(whole, row, limit)
        if len(beyond) > 2:
            distance = np.abs(beyond @ row - limit)
            on = beyond[distance <= 1e-9 * (1 + abs(limit) + distance.max())]
            marks.append(Mark("area", UNSAFE, "unsafe", beyond, faint=True))
            if len(on) >= 2:
                marks.append(Mark("curve", BOUNDARY, "unsafe", hull(on), dashed=True))
    return marks
