"""Random VNN-LIB formulas and an evaluation of them that shares nothing with the parser."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from verifier.specs.property import Query

INPUTS, OUTPUTS = 2, 3

#: decimals on a coarse grid, so that sampled points hit boundaries often
numbers = st.integers(-4, 4).map(lambda k: f"{k / 2:g}")


@st.composite
def terms(draw, names: list[str], depth: int = 2) -> str:
    """A linear term over some of the variables."""
    kind = draw(st.sampled_from(["variable", "number", "sum", "difference", "product", "negation"])) if depth else None
    if kind == "number":
        return draw(numbers)
    if kind == "product":
        factors = [draw(numbers), draw(terms(names, depth - 1))]
        return f"(* {' '.join(draw(st.permutations(factors)))})"
    if kind == "negation":
        return f"(- {draw(terms(names, depth - 1))})"
    if kind in ("sum", "difference"):
        count = draw(st.integers(2, 3))
        return f"({'+' if kind == 'sum' else '-'} {' '.join(draw(terms(names, depth - 1)) for _ in range(count))})"
    return draw(st.sampled_from(names))


@st.composite
def atoms(draw, equality: str) -> str:
    """A bound of one input or a row over the outputs, written any way round."""
    if draw(st.booleans()):
        sides = [draw(terms([f"Y_{j}" for j in range(OUTPUTS)])), draw(terms([f"Y_{j}" for j in range(OUTPUTS)], 1))]
    else:
        name = f"X_{draw(st.integers(0, INPUTS - 1))}"
        sides = [f"(* {draw(st.sampled_from(['2', '-0.5', '1']))} {name})", draw(numbers)]
        if draw(st.booleans()):
            sides[0] = name
    operator = draw(st.sampled_from(["<=", ">=", "<=", ">=", equality]))
    return f"({operator} {' '.join(draw(st.permutations(sides)))})"


def formulas(equality: str = "=") -> st.SearchStrategy[str]:
    """``and`` and ``or`` over atoms, nested any way."""
    return st.recursive(
        atoms(equality),
        lambda inner: st.builds(
            lambda head, parts: f"({head} {' '.join(parts)})",
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=8,
    )


def bounds() -> list[str]:
    """Every input in [-2, 2]."""
    return [f"({op} X_{i} {end})" for i in range(INPUTS) for op, end in ((">=", "-2.0"), ("<=", "2.0"))]


def tree(text: str) -> list:
    """Nested lists of the words of an expression."""
    stack: list[list] = [[]]
    for word in text.replace("(", " ( ").replace(")", " ) ").split():
        if word == "(":
            stack.append([])
        elif word == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(word)
    return stack[0]


def evaluate(node, point: dict[str, Fraction]):
    """The value of a tree at a point, exactly."""
    if isinstance(node, str):
        return point[node] if node in point else Fraction(node)
    head, *rest = node
    values = [evaluate(part, point) for part in rest]
    if head in ("and", "or"):
        return all(values) if head == "and" else any(values)
    if head in ("<=", ">=", "=", "=="):
        return {"<=": values[0] <= values[1], ">=": values[0] >= values[1]}.get(head, values[0] == values[1])
    total = values[0]
    if head == "-" and len(values) == 1:
        return -total
    for value in values[1:]:
        total = {"+": total + value, "-": total - value, "*": total * value}[head]
    return total


def violates(query: Query, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether (x, y) lies in some region and one of its unsafe polytopes."""
    for prop in query.properties:
        box = prop.region.enclosing_box()
        inside = (box.lower[0].numpy() <= x).all() and (x <= box.upper[0].numpy()).all()
        if inside and any(polytope.contains(y) for polytope in prop.unsafe):
            return True
    return False
