"""A persistent HiGHS model (Huangfu and Hall 2018): built once, solved again and again from its last basis.

Nothing that it returns is trusted: callers turn dual values into dual points and evaluate those.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import torch

from verifier.bounding.lp.duals import Duals
from verifier.bounding.lp.network import Affine
from verifier.bounding.lp.program import Program, over_columns
from verifier.workers import Workers

#: models at a time on machines with many cores
MOST_WORKERS = 8
#: cuts that an optimum violates by less than this share of their limit (or of one) are not added
VIOLATION = 1e-6
#: cuts that are added at a time, the most violated ones
MOST_CUTS = 500
#: optima that cuts are looked for at
ROUNDS = 30


class WarmModel:
    """A program in HiGHS, whose cost and limits its owner changes between solves.

    Solves are by interior points, with a crossover to a basis, until one comes to an end in time; then by simplex from
    the last basis. Of the program's cuts only those become rows that some optimum violates.

    Args:
        program: the program; it is copied.
    """

    def __init__(self, program: Program):
        self.program = program
        self.highs = load(program)
        self.highs.setOptionValue("solver", "ipm")
        self._columns = np.arange(len(program.lower), dtype=np.int32)
        self._added = np.zeros(0, dtype=np.int64)  # cuts that are rows, in order

    def charge(self, cost: np.ndarray) -> None:
        """The cost of every column."""
        self.highs.changeColsCost(len(cost), self._columns, cost)

    def solve(self, deadline: float | None) -> Duals | None:
        """Minimise what the cost is now; None where HiGHS does not claim an optimum."""
        best = None
        for _ in range(ROUNDS):
            found = self._optimum(deadline)
            if found is None:
                break
            best, point = found
            if not self._add_violated(point):
                break
        return best

    def _optimum(self, deadline: float | None) -> tuple[Duals, np.ndarray] | None:
        """An optimum over the rows that there are, and its columns."""
        import highspy

        if not run(self.highs, deadline):
            return None
        status = self.highs.getModelStatus()
        if status != highspy.HighsModelStatus.kTimeLimit:
            self.highs.setOptionValue("solver", "simplex")
        if status != highspy.HighsModelStatus.kOptimal:
            return None
        found = self.highs.getSolution()
        value = self.highs.getInfo().objective_function_value
        point, row_dual, column_dual = (np.array(v) for v in (found.col_value, found.row_dual, found.col_dual))
        height = len(self.program.row_lower)
        on_cuts = np.zeros(len(self.program.cuts[1]))
        on_cuts[self._added] = row_dual[height:]
        duals = self.program.duals(point, np.concatenate([row_dual[:height], on_cuts]), column_dual, value)
        return duals, point

    def _add_violated(self, point: np.ndarray) -> bool:
        """Add the cuts that columns violate most; whether there were any."""
        matrix, limit = self.program.cuts
        if len(limit) == 0:
            return False
        excess = (matrix @ point - limit) / np.maximum(1.0, np.abs(limit))
        excess[self._added] = 0.0
        chosen = np.argsort(-excess, kind="stable")[:MOST_CUTS]
        chosen = chosen[excess[chosen] > VIOLATION]
        part = matrix[chosen]
        none, ends = np.full(len(chosen), -np.inf), part.indptr.astype(np.int32)
        self.highs.addRows(
            len(chosen), none, limit[chosen], part.nnz, ends[:-1], part.indices.astype(np.int32), part.data
        )
        self._added = np.concatenate([self._added, chosen])
        return len(chosen) > 0

    def infeasible(self) -> bool:
        """Whether the last solve ended with the claim that nothing meets the limits."""
        import highspy

        return self.highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible


class HighsModel:
    """Minimises one row after the other.

    Args:
        program: the program.
        rows: what is minimised.
    """

    def __init__(self, program: Program, rows: Affine):
        self._model = WarmModel(program)
        self._cost, self._constant = over_columns(rows, program.values, len(program.lower))

    def minimise(self, row: int, deadline: float | None) -> Duals | None:
        self._model.charge(self._cost[[row]].toarray()[0])
        found = self._model.solve(deadline)
        return None if found is None else replace(found, value=found.value + float(self._constant[row]))


def run(highs: Any, deadline: float | None) -> bool:
    """Start HiGHS; False where no time is left."""
    left = None if deadline is None else deadline - monotonic()
    if left is not None and left <= 0:
        return False
    limit = highs.getInfinity() if left is None else highs.getRunTime() + left  # it counts all runs together
    highs.setOptionValue("time_limit", limit)
    highs.run()
    return True


def workers() -> int:
    """How many models may be solved side by side: HiGHS works on one core, and lets other threads run meanwhile."""
    return min(MOST_WORKERS, Workers.on(torch.device("cpu")).count)


def load(program: Program) -> Any:
    """A silent HiGHS instance on one thread with the program in it, without cost."""
    import highspy

    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = len(program.row_lower), len(program.lower)
    lp.col_cost_ = np.zeros(len(program.lower))
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    matrix: Any = lp.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.start_, matrix.index_ = program.A.indptr.astype(np.int32), program.A.indices.astype(np.int32)
    matrix.value_ = program.A.data
    highs = highspy.Highs()
    for option, value in (("output_flag", False), ("threads", 1), ("parallel", "off")):
        highs.setOptionValue(option, value)
    highs.passModel(lp)
    return highs


def add_binaries(highs: Any, count: int) -> np.ndarray:
    """New columns that are 0 or 1, without coefficients; their indices."""
    import highspy

    first, none = highs.getNumCol(), np.zeros(0, dtype=np.int32)
    highs.addCols(count, np.zeros(count), np.zeros(count), np.ones(count), 0, none, none, np.zeros(0))
    columns = np.arange(first, first + count, dtype=np.int32)
    kind = np.full(count, highspy.HighsVarType.kInteger.value, dtype=np.uint8)
    highs.changeColsIntegrality(count, columns, kind)
    return columns
