"""verifier: proves, or refutes with a replayed counterexample, that a neural network meets a specification.

Names are loaded on first use, so ``import verifier`` costs nothing: neither torch nor onnx is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.analysis.brackets import Bracket
    from verifier.analysis.compare import compare
    from verifier.analysis.comparison import Comparison
    from verifier.analysis.radius import radii, radius
    from verifier.errors import InputError
    from verifier.graph import load
    from verifier.pipeline import bounds, verify
    from verifier.specs.datasets import Dataset, load_dataset
    from verifier.specs.property import Polytope, Property, Query
    from verifier.specs.robustness import robustness
    from verifier.specs.vnnlib import read_vnnlib
    from verifier.training.convert import from_torch, to_torch
    from verifier.verdict import Counterexample, Falsified, Undecided, Verdict, Verified

__version__ = "0.1.0"

__all__ = [
    "Bracket",
    "Comparison",
    "Counterexample",
    "Dataset",
    "Falsified",
    "InputError",
    "Polytope",
    "Property",
    "Query",
    "Undecided",
    "Verdict",
    "Verified",
    "__version__",
    "bounds",
    "compare",
    "from_torch",
    "load",
    "load_dataset",
    "radii",
    "radius",
    "read_vnnlib",
    "robustness",
    "to_torch",
    "verify",
]

#: exported name -> the module that it lives in.
_HOMES = {
    "Bracket": "verifier.analysis.brackets",
    "Comparison": "verifier.analysis.comparison",
    "Counterexample": "verifier.verdict",
    "Dataset": "verifier.specs.datasets",
    "Falsified": "verifier.verdict",
    "InputError": "verifier.errors",
    "Polytope": "verifier.specs.property",
    "Property": "verifier.specs.property",
    "Query": "verifier.specs.property",
    "Undecided": "verifier.verdict",
    "Verdict": "verifier.verdict",
    "Verified": "verifier.verdict",
    "bounds": "verifier.pipeline",
    "compare": "verifier.analysis.compare",
    "from_torch": "verifier.training.convert",
    "load": "verifier.graph",
    "load_dataset": "verifier.specs.datasets",
    "radii": "verifier.analysis.radius",
    "radius": "verifier.analysis.radius",
    "read_vnnlib": "verifier.specs.vnnlib",
    "robustness": "verifier.specs.robustness",
    "to_torch": "verifier.training.convert",
    "verify": "verifier.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
