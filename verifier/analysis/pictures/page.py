"""Pictures as one HTML page that needs nothing else: data and script are inside, and no request leaves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from verifier.analysis.pictures.marks import COLOURS, ROLES, Film, Mark, Picture

#: digits of a coordinate: more than a screen can show
DIGITS = 6


def page(films: Sequence[Film], heading: str) -> str:
    """The page.

    Args:
        films: what it shows.
        heading: what they are of.
    """
    here = files("verifier.analysis.pictures")
    used = {mark.role for film in films for frame in film.frames for mark in frame.marks}
    content = {"films": document(films), "colours": dict(COLOURS), "roles": {r: ROLES[r] for r in ROLES if r in used}}
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        heading=escape(heading),
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        script=here.joinpath("page.js").read_text(encoding="utf-8"),
        # "</script>" in a name must not end the script
        data=json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )


def document(films: Sequence[Film]) -> list[dict[str, Any]]:
    """Films as plain data: what the page shows, and what ``--json`` writes."""
    return [
        {
            "control": film.control,
            "names": list(film.names),
            "start": film.start,
            "frames": [_picture(frame) for frame in film.frames],
        }
        for film in films
    ]


def _picture(picture: Picture) -> dict[str, Any]:
    plain = {name: getattr(picture, name) for name in ("key", "title", "caption", "x_label", "y_label")}
    return plain | {
        "window": [list(ends) for ends in picture.window],
        "rows": list(picture.rows),
        "marks": [_mark(mark) for mark in picture.marks],
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "kind": mark.kind,
        "label": mark.label,
        "role": mark.role,
        "dashed": mark.dashed,
        "faint": mark.faint,
        "note": mark.note,
        "width": round(mark.width, 2),
        "points": [[_short(x), _short(y)] for x, y in np.asarray(mark.points).tolist()],
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
