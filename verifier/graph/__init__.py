"""Networks: ONNX files read into a small graph.

Names are loaded on first use, because this package is imported for its types wherever a graph is handled, and only
reading a file needs onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.graph.reader import CoverageRow, coverage, load

__all__ = ["CoverageRow", "coverage", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("verifier.graph.reader"), name)
