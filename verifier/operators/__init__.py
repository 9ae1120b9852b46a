"""Operators of the graph: one family a file, one registry.

To add an operator: name it in `verifier.graph.ir.OPS`, write one `Operator` in the file of its family, and add an
example of its use to ``tests/operators/examples.py``; the laws then test it.
"""

from verifier.operators.evaluate import evaluate, evaluate_all, find_device, place, require_bound_rules
from verifier.operators.registry import Operator
from verifier.operators.table import OPERATORS

__all__ = ["OPERATORS", "Operator", "evaluate", "evaluate_all", "find_device", "place", "require_bound_rules"]
