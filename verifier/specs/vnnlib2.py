"""VNN-LIB 2.0, through the typed syntax tree of the package `vnnlib`.

Only its parser is used. Normal forms and bounds come from `formula` and `cases`, as for version 1.0: the package's
own normaliser changes the meaning of some formulas, and its numbers are rounded.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from math import prod
from typing import Any

import vnnlib

from verifier.errors import InputError
from verifier.specs.cases import Assertions
from verifier.specs.exact import parse_number
from verifier.specs.formula import Atoms, Fault, Formula, Linear, all_of, any_of, combine

_COMMENT = re.compile(r";[^\n]*")
_EXPONENT = re.compile(r"(?<![\w.])[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_SYNTAX = re.compile(r"line (\d+), column \d+: (.*)", re.DOTALL)
_DEEPEST = 200  # the tree is walked by recursion
_REAL_TYPES = ("Real", "real", "float16", "float32", "float64", "bfloat16")
_HALVES = {vnnlib.LessEqual: (1,), vnnlib.GreaterEqual: (-1,), vnnlib.Equal: (1, -1)}
_OPERATORS = {vnnlib.Plus: "+", vnnlib.Multiply: "*"}


def parse_vnnlib2(text: str, where: str) -> Assertions:
    """Read the text of a VNN-LIB 2.0 file about one network with one input and one output.

    Tensors are flattened in row-major order.

    Args:
        text: the file's content.
        where: its name, for messages.

    Raises:
        InputError: names the line, where the package tells it, and what is wrong there.
    """
    plain = _COMMENT.sub("", text)
    if _depth(plain) > _DEEPEST:
        raise InputError(where, f"parentheses nest deeper than {_DEEPEST}", "flatten the formula")
    try:
        query = vnnlib.parse_query_string(plain)
    except vnnlib.VNNLibException as error:
        raise _explain(str(error), plain, where) from None
    try:
        return _Reader(query).assertions()
    except Fault as fault:
        raise InputError(where, fault.what, fault.mend) from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for parenthesis in re.findall(r"[()]", text):
        depth += 1 if parenthesis == "(" else -1
        deepest = max(deepest, depth)
    return deepest


def _explain(message: str, text: str, where: str) -> InputError:
    """The package's complaint, which is either a line of text or JSON, in one sentence."""
    try:
        first = json.loads(message)["errors"][0]
    except (ValueError, KeyError, IndexError):
        return _explain_syntax(message, text, where)
    what = f"{first['message']} at '{first['offendingSymbol']}'"
    mend = str(first["hint"]).rstrip(".")
    if first["errorCode"] == "TypeMismatch":
        mend += "; write numbers compared with floats with a decimal point, 0.0 for 0"
    return InputError(f"{where}, line {first['line']}", what, mend)


def _explain_syntax(message: str, text: str, where: str) -> InputError:
    match = _SYNTAX.search(message)
    if match is None:
        return InputError(where, " ".join(message.split()), "correct the syntax")
    line, near = int(match[1]), match[2]
    written = (text.splitlines() + [""] * line)[line - 1]
    exponent = _EXPONENT.search(written)
    if exponent:
        mend = "VNN-LIB 2.0 has no exponents: write the number as a plain decimal"
        return InputError(f"{where}, line {line}", f"the number {exponent[0]}", mend)
    if text.count("(") != text.count(")"):
        return InputError(f"{where}, line {line}", "unbalanced parentheses", "balance them")
    return InputError(f"{where}, line {line}", f"syntax error near {near}", "correct it")


class _Reader:
    """One query's syntax tree, as formulas over flat inputs and outputs."""

    def __init__(self, query: Any):
        self.query = query
        self.atoms = Atoms()

    def assertions(self) -> Assertions:
        networks = self.query.networks
        if len(networks) != 1:
            names = ", ".join(network.name for network in networks)
            raise Fault(f"{len(networks)} networks ({names})", "only queries about one network are supported")
        (network,) = networks
        for kind, found in (("input", network.inputs), ("output", network.outputs)):
            if len(found) != 1:
                names = ", ".join(definition.name for definition in found)
                raise Fault(f"{len(found)} {kind}s ({names})", f"only networks of one {kind} are supported")
        if network.hidden:
            raise Fault(f"hidden node {network.hidden[0].name}", "only constraints on input and output are supported")
        for definition in (network.inputs[0], network.outputs[0]):
            kind = str(definition).replace(")", " ").split()[2]
            if kind not in _REAL_TYPES:
                raise Fault(f"{definition.name} has type {kind}", f"known types are {', '.join(_REAL_TYPES)}")
        formulas = [self.formula(assertion.expr) for assertion in self.query.assertions]
        return Assertions(prod(network.inputs[0].shape), prod(network.outputs[0].shape), self.atoms, formulas)

    def formula(self, node: Any) -> Formula:
        if isinstance(node, vnnlib.And):
            return all_of([self.formula(part) for part in node.args])
        if isinstance(node, vnnlib.Or):
            return any_of([self.formula(part) for part in node.args])
        if isinstance(node, (vnnlib.LessThan, vnnlib.GreaterThan)):
            raise Fault(f"strict inequality {node}", "use '<=' or '>=': a solver cannot tell the two apart")
        if type(node) not in _HALVES:
            raise Fault(f"{node} is not supported", "use <=, >=, ==, and, or")
        a, b = self.term(node.lhs), self.term(node.rhs)
        try:
            return all_of([self.atoms.at_most_zero(*((a, b) if side > 0 else (b, a))) for side in _HALVES[type(node)]])
        except Fault as fault:
            raise Fault(f"{fault.what}, {node}", fault.mend) from None

    def term(self, node: Any) -> Linear:
        if isinstance(node, vnnlib.Var):
            return Linear({self.variable(node): Fraction(1)}, Fraction(0))
        if isinstance(node, vnnlib.Literal):
            value = parse_number(node.lexeme)
            if value is None:
                raise Fault(f"the number {node.lexeme} is out of range", "use at most 1000 digits")
            return Linear({}, value)
        if isinstance(node, vnnlib.Negate):
            return combine("-", [self.term(node.expr)])
        if isinstance(node, vnnlib.Minus):
            return combine("-", [self.term(node.head), *map(self.term, node.rest)])
        if type(node) not in _OPERATORS:
            raise Fault(f"{node} is not supported", "use +, - and products with a number")
        try:
            return combine(_OPERATORS[type(node)], [self.term(part) for part in node.args])
        except Fault as fault:
            raise Fault(f"{fault.what}, {node}", fault.mend) from None

    @staticmethod
    def variable(node: Any) -> int:
        """The number of a variable (see `Linear`): its row-major position, outputs counted down from -1."""
        place = 0
        for index, size in zip(node.indices, node.shape, strict=True):
            place = place * size + index
        return place if node.kind == vnnlib.SymbolKind.Input else -1 - place
