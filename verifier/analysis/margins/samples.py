"""Brackets of many inputs as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.analysis.brackets import Bracket
from verifier.errors import InputError


@dataclass(frozen=True, eq=False)
class Samples:
    """Brackets of n inputs.

    Args:
        lower, upper: (n,) float64 ends of the margins.
        correct: (n,) bool, whether the prediction is the data set's label.
        prediction: (n,) int64.
    """

    lower: np.ndarray
    upper: np.ndarray
    correct: np.ndarray
    prediction: np.ndarray

    @staticmethod
    def of(brackets: Sequence[Bracket]) -> Samples:
        """Raises:
        InputError: there is no bracket.
        """
        if not brackets:
            raise InputError("--brackets", "there is no input in the set", "measure some with verifier radius")
        return Samples(
            np.array([bracket.lower for bracket in brackets], dtype=np.float64),
            np.array([bracket.upper for bracket in brackets], dtype=np.float64),
            np.array([bracket.correct is not False for bracket in brackets]),
            np.array([bracket.label for bracket in brackets], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.lower)

    def select(self, index: np.ndarray) -> Samples:
        """Some of them, by a mask or by places."""
        return Samples(self.lower[index], self.upper[index], self.correct[index], self.prediction[index])

    def brittle(self, epsilon: float) -> np.ndarray:
        """(n,) whether an input within epsilon is known that is classified otherwise."""
        return self.upper <= epsilon

    def robust(self, epsilon: float) -> np.ndarray:
        """(n,) whether it is verified that there is none."""
        return self.lower >= epsilon


def require_correct(samples: Samples) -> None:
    """Raises:
    InputError: every input is misclassified, so there is no robust accuracy to speak of.
    """
    if not samples.correct.any():
        what = f"all {len(samples)} inputs are misclassified"
        raise InputError("inputs", what, "check that the data set is the network's, and --mean and --std")
