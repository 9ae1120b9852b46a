"""Attacks: the search for inputs that break a property. What they find counts once onnxruntime has confirmed it.

An attack is a frozen record of options with `start`, `step` and `done`; its state is a frozen record too, so it can be
kept and gone on with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.attacks.nearest import MinimumNorm, MinimumNormOptions, minimum_norm

__all__ = ["MinimumNorm", "MinimumNormOptions", "minimum_norm"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("verifier.attacks.nearest"), name)
