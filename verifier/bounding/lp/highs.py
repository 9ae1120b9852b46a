"""A persistent HiGHS model (Huangfu and Hall 2018): built once, solved again and again from its last basis.

Nothing that it returns is trusted: callers turn dual values into dual points and evaluate those.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import numpy as np

from verifier.bounding.lp.duals import Duals
from verifier.bounding.lp.network import Affine
from verifier.bounding.lp.program import Program, over_columns


class HighsModel:
    """A linear program that is solved for one row after the other.

    The first solve is by interior points, with a crossover to a basis; all later ones are simplex from that basis.

    Args:
        program: the program; it is copied.
        rows: what is minimised.
    """

    def __init__(self, program: Program, rows: Affine):
        self.program = program
        self.highs = load(program)
        self.highs.setOptionValue("solver", "ipm")
        self._cost, self._constant = over_columns(rows, program.values, len(program.lower))
        self._columns = np.arange(len(program.lower), dtype=np.int32)

    def minimise(self, row: int, deadline: float | None) -> Duals | None:
        cost = self._cost[[row]].toarray()[0]
        self.highs.changeColsCost(len(cost), self._columns, cost)
        return self.solve(deadline, float(self._constant[row]))

    def solve(self, deadline: float | None, constant: float = 0.0) -> Duals | None:
        """Minimise what the cost is now, plus a constant; None where HiGHS does not claim an optimum."""
        import highspy

        if not self.run(deadline) or self.highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        found = self.highs.getSolution()
        value = self.highs.getInfo().objective_function_value + constant
        point, row_dual, column_dual = (np.array(v) for v in (found.col_value, found.row_dual, found.col_dual))
        return self.program.duals(point, row_dual, column_dual, value)

    def run(self, deadline: float | None) -> bool:
        """Start HiGHS; False where no time is left."""
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            return False
        limit = self.highs.getInfinity() if left is None else self.highs.getRunTime() + left  # it counts all runs
        self.highs.setOptionValue("time_limit", limit)
        self.highs.run()
        self.highs.setOptionValue("solver", "simplex")
        return True


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
