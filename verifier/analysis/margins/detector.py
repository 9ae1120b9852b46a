"""Detectors of brittle decisions: flag an input whose score is at most lambda, with a guarantee for what passes.

What counts against a detector is an input that passes although its margin is not *verified* to be epsilon or more;
that includes every brittle one. Both guarantees are about further inputs of the distribution that the calibration
set was drawn from, independently, and about no others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from verifier.analysis.margins.samples import Samples
from verifier.errors import InputError

Rule = Literal["conformal", "selective"]
RULES: tuple[Rule, ...] = ("conformal", "selective")
#: share of a calibration set whose scores make the thresholds that the rest of it tests
_REFERENCE = 0.2
#: thresholds of a sequence of tests
_TESTS = 50
#: inputs that the first test expects, as a multiple of those that it needs if none of them is risky
_START = 2.0


@dataclass(frozen=True)
class Threshold:
    """A calibrated detector.

    Args:
        value: lambda; an input is flagged where its score is at most that. -inf flags none.
        rule: how it was calibrated.
        alpha: level of the risk.
        delta: for `selective`, how probable a calibration set is that breaks the level.
        epsilon: radius.
        n: size of the calibration set.
        passed, risky: inputs of the calibration set (for `selective` of the part that tests) that pass, and those of
            them that are not verified at epsilon.
    """

    value: float
    rule: Rule
    alpha: float
    delta: float | None
    epsilon: float
    n: int
    passed: int
    risky: int

    @property
    def guarantee(self) -> str:
        """In words."""
        level = f"{self.alpha:g}"
        if self.rule == "conformal":
            return (
                f"P(an input passes and its margin is below {self.epsilon:g}) <= {level}, over the draw of the "
                "calibration set and the input"
            )
        return (
            f"with probability {1 - (self.delta or 0):g} over the draw of the calibration set, "
            f"P(margin below {self.epsilon:g} | passed) <= {level}"
        )


def calibrate(
    scores: np.ndarray,
    samples: Samples,
    epsilon: float,
    alpha: float,
    rule: Rule = "conformal",
    delta: float = 0.1,
    seed: int = 0,
) -> Threshold:
    """Choose lambda.

    Args:
        scores: (n,) of the calibration set.
        samples: its brackets.
        epsilon: radius, positive.
        alpha: level of the risk, in (0, 1).
        rule: `conformal` bounds P(passed and risky) on average over calibration sets; `selective` bounds P(risky |
            passed) for all but a share delta of them.
        delta: see `rule`.
        seed: which inputs make the thresholds of `selective`.

    Raises:
        InputError: the set is empty, a number is out of range, or the set is too small for the level; it says how many
            would do.
    """
    if len(samples) == 0:
        raise InputError("calibration", "the set is empty", f"give at least {least_size(rule, alpha, delta)} inputs")
    for name, value in (("--alpha", alpha), ("--delta", delta)):
        if not 0 < value < 1:
            raise InputError(f"{name} {value:g}", "is not a probability", "give a number between 0 and 1, such as 0.05")
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"--epsilon {epsilon:g}", "is no radius", "give a positive number")
    if rule == "conformal":
        return _conformal(scores, samples, epsilon, alpha)
    return _selective(scores, samples, epsilon, alpha, delta, seed)


def least_size(rule: Rule, alpha: float, delta: float) -> int:
    """Size of the smallest calibration set with which a level can be reached at all."""
    if rule == "conformal":
        return math.ceil(1 / Fraction(str(alpha))) - 1
    return math.ceil(_START * _fewest(alpha, delta) / (1 - _REFERENCE))


def clopper_pearson(count: int, n: int, delta: float) -> tuple[float, float]:
    """One-sided bounds of a probability, each at confidence 1 - delta (Clopper and Pearson 1934).

    Args:
        count: successes of n trials.
    """
    from scipy.stats import beta

    low = 0.0 if count == 0 else float(beta.ppf(delta, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(1 - delta, count + 1, n - count))
    return low, high


def _conformal(scores: np.ndarray, samples: Samples, epsilon: float, alpha: float) -> Threshold:
    """Conformal risk control (Angelopoulos et al. 2024, ICLR, Theorem 1) of the loss ``1{s > lambda, risky}``, which is
    at most 1 and falls in lambda: the smallest lambda with ``(sum of losses + 1) / (n + 1) <= alpha``."""
    n = len(samples)
    allowed = math.floor(Fraction(str(alpha)) * (n + 1) - 1)
    if allowed < 0:
        raise InputError(
            f"--alpha {alpha:g}",
            f"cannot be reached with {n} calibration inputs",
            f"give at least {least_size('conformal', alpha, 0.5)}, or a larger level",
        )
    risky = np.sort(scores[~samples.robust(epsilon)])[::-1]
    value = _between(scores, float(risky[allowed])) if len(risky) > allowed else -math.inf
    passed = scores > value
    return Threshold(
        value, "conformal", alpha, None, epsilon, n, int(passed.sum()), int((passed & ~samples.robust(epsilon)).sum())
    )


def _selective(
    scores: np.ndarray, samples: Samples, epsilon: float, alpha: float, delta: float, seed: int
) -> Threshold:
    """Fixed-sequence tests from large to small thresholds, each by a Clopper-Pearson bound at confidence 1 - delta.

    The thresholds are scores of a part of the set whose margins are not looked at, so they are fixed when the rest is
    tested; the first test that fails ends the sequence, so nothing has to be paid for their number (Geifman and
    El-Yaniv 2017, NeurIPS, for the bound; Bates et al. 2021, JACM, for the sequence).
    """
    n = len(samples)
    need = least_size("selective", alpha, delta)
    if n < need:
        what = f"cannot be reached with {n} calibration inputs"
        raise InputError(f"--alpha {alpha:g}", what, f"give at least {need}, or a larger level")
    order = np.random.default_rng(seed).permutation(n)
    cut = math.ceil(_REFERENCE * n)
    test = order[cut:]
    risky = ~samples.robust(epsilon)[test]
    found: Threshold | None = None
    first: tuple[int, int] | None = None
    for value in _sequence(scores[order[:cut]], len(test), alpha, delta):
        passed = scores[test] > value
        count, total = int((passed & risky).sum()), int(passed.sum())
        first = (count, total) if first is None else first
        if total == 0 or clopper_pearson(count, total, delta)[1] > alpha:
            break
        found = Threshold(value, "selective", alpha, delta, epsilon, n, total, count)
    if found is None:
        raise _unreachable(alpha, delta, *(first or (0, 0)))
    return found


def _sequence(reference: np.ndarray, tested: int, alpha: float, delta: float) -> list[float]:
    """Thresholds from large to small: scores that about `_START` times the fewest inputs pass, and more and more."""
    ranked = np.sort(reference)[::-1]
    share = min(1.0, _START * _fewest(alpha, delta) / tested)
    shares = np.linspace(share, 1.0, _TESTS)
    places = np.unique(np.minimum(np.ceil(shares * len(ranked)).astype(int), len(ranked)) - 1)
    values = [_between(reference, float(ranked[place])) for place in places]
    return list(dict.fromkeys([*values, -math.inf]))


def _fewest(alpha: float, delta: float) -> int:
    """Inputs without a risky one among them that are needed for a Clopper-Pearson bound of alpha."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def _unreachable(alpha: float, delta: float, count: int, total: int) -> InputError:
    """Why the first test failed, and how many inputs would do if their share of risky ones stays."""
    what = f"cannot be reached: of the {total} calibration inputs with the largest scores {count} are not verified"
    rate = count / max(1, total)
    if rate >= alpha:
        return InputError(
            f"--alpha {alpha:g}",
            what,
            "no number of inputs would change that; choose a larger level, a smaller radius or another score",
        )
    size = max(1, total)
    while clopper_pearson(math.ceil(rate * size), size, delta)[1] > alpha:
        size = math.ceil(1.1 * size) + 1
    return InputError(f"--alpha {alpha:g}", what, f"about {math.ceil(size / (1 - _REFERENCE))} inputs would do")


def _between(scores: np.ndarray, value: float) -> float:
    """A float32 threshold with the same inputs above it, and as far from their scores as can be."""
    above = scores[scores > value]
    middle = value if len(above) == 0 else (value + float(above.min())) / 2
    near = np.float32(middle)
    return float(near if near >= value else np.nextafter(near, np.float32(np.inf)))
