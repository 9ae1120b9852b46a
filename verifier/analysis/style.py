"""How pictures of measurements look."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

#: colours that the colour-blind can tell apart (Okabe and Ito 2008)
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999"
INK, PALE = "#222222", "#DDDDDD"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
}


def styled() -> AbstractContextManager[None]:
    """A context in which figures are drawn."""
    from matplotlib import rc_context

    return rc_context(_STYLE)
