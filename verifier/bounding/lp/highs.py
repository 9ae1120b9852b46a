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


class WarmModel:
    """A program in HiGHS, whose cost and limits its owner changes between solves.

    Solves are by interior points, with a crossover to a basis, until one comes to an end in time; then by simplex from
    the last basis.

    Args:
        program: the program; it is copied.
    """

    def __init__(self, program: Program):
        self.program = program
        self.highs = load(program)
        self.highs.setOptionValue("solver", "ipm")
        self._columns = np.arange(len(program.lower), dtype=np.int32)

    def charge(self, cost: np.ndarray) -> None:
        """The cost of every column."""
        self.highs.changeColsCost(len(cost), self._columns, cost)

    def solve(self, deadline: float | None) -> Duals | None:
        """Minimise what the cost is now; None where HiGHS does not claim an optimum."""
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
        return self.program.duals(point, row_dual, column_dual, value)

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
