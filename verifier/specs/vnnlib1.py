"""VNN-LIB 1.0: a parser of one pass over the tokens, without recursion.

A comparison of two plain operands, which is nearly all that files hold, is one token, and equal texts are parsed
once; so a file with millions of constraints reads in seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from verifier.errors import InputError
from verifier.specs.cases import Assertions
from verifier.specs.exact import parse_number
from verifier.specs.formula import Atoms, Fault, Formula, Linear, all_of, any_of, combine

_COMMENT = re.compile(r";[^\n]*")
_TOKEN = re.compile(r"\(\s*[<>]=\s+[^\s()]+\s+[^\s()]+\s*\)|[()]|[^\s()]+")
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,8})")
_DEEPEST = 10_000
_COMMANDS = ("assert", "declare-const")
_COMPARISONS = ("<=", ">=", "=")

#: what stands between parentheses: a symbol, a number of an atom, a formula, a sum, or a finished command
Item = str | int | Formula | Linear | None


@dataclass
class _Frame:
    """An open parenthesis: the number of its token and what has been read inside."""

    token: int
    items: list[Item] = field(default_factory=list)


def parse_vnnlib1(text: str, where: str) -> Assertions:
    """Read the text of a VNN-LIB 1.0 file.

    Args:
        text: declarations of X_i and Y_j as Real, and assertions of ``<=``, ``>=``, ``=``, ``and``, ``or`` over
            linear terms.
        where: the file's name, for messages.

    Raises:
        InputError: names the line and what is wrong there.
    """
    if ";" in text:
        text = _COMMENT.sub("", text)
    parser, place = _Parser(), None
    try:
        for place, word in enumerate(_TOKEN.findall(text)):
            parser.read(place, word)
        place = None
        return parser.finish()
    except Fault as fault:
        place = place if parser.place is None else parser.place
        where = where if place is None else f"{where}, line {_line(text, place)}"
        raise InputError(where, fault.what, fault.mend) from None


def _line(text: str, token: int) -> int:
    """The line of a token, found by reading again, so that nobody pays for it where there is no error."""
    for number, match in enumerate(_TOKEN.finditer(text)):
        if number == token:
            return text.count("\n", 0, match.start()) + 1
    raise IndexError(token)


class _Parser:
    """The state of the pass: open parentheses, declared variables, what has been asserted."""

    def __init__(self):
        self.place: int | None = None  # the token to name in a message, where it is not the current one
        self.atoms = Atoms()
        self.asserted: list[Formula] = []
        self.variables: dict[str, int] = {}
        self.frames: list[_Frame] = []
        self.known: dict[str, Item] = {}

    def read(self, token: int, word: str) -> None:
        """Take one token."""
        if word == "(":
            if len(self.frames) >= _DEEPEST:
                raise Fault(f"parentheses nest deeper than {_DEEPEST}", "flatten the formula")
            self.frames.append(_Frame(token))
            return
        if word == ")":
            if not self.frames:
                raise Fault("a ')' closes nothing", "remove it, or open it with '('")
            frame = self.frames.pop()
            self.place = frame.token
            item = self._close(frame.items)
            self.place = None
        elif word[0] == "(":
            item = self.known.get(word)
            if item is None:
                operator, left, right = word[1:-1].split()
                item = self.known[word] = self._compare(operator, left, right)
        else:
            item = word
        if self.frames:
            self.frames[-1].items.append(item)
        elif item is not None:
            raise Fault(f"{word!r} stands outside any command", "write it inside (assert ...)")

    def finish(self) -> Assertions:
        """What the file says, at its end."""
        if self.frames:
            self.place = self.frames[-1].token
            raise Fault("this '(' is never closed", "balance the parentheses")
        if not self.asserted:
            raise Fault("the file asserts nothing", "add (assert ...) with bounds of the inputs")
        inputs, outputs = self._count("X"), self._count("Y")
        return Assertions(inputs, outputs, self.atoms, self.asserted)

    def _count(self, kind: str) -> int:
        declared = [name for name in self.variables if name[0] == kind]
        for i in range(len(declared)):
            if f"{kind}_{i}" not in self.variables:
                raise Fault(f"{kind}_{i} is not declared, though later ones are", "declare them from 0 on")
        if not declared:
            raise Fault(f"no {kind}_0 is declared", f"add (declare-const {kind}_0 Real)")
        return len(declared)

    def _close(self, items: list[Item]) -> Item:
        """What a finished pair of parentheses stands for."""
        head = items[0] if items else None
        arguments = items[1:]
        if head in _COMMANDS:
            self._command(str(head), arguments)
            return None
        if any(argument is None for argument in arguments):
            raise Fault("this '(' is not closed before the next command", "balance the parentheses")
        if head in ("and", "or"):
            return self._connect(str(head), arguments)
        if head in _COMPARISONS:
            if len(arguments) != 2:
                raise Fault(f"'{head}' compares {len(arguments)} terms", "compare two")
            return self._compare(str(head), *arguments)
        if head in ("+", "-", "*"):
            return combine(str(head), [self._term(argument) for argument in arguments])
        if head in ("<", ">"):
            raise Fault(f"strict inequality '{head}'", f"use '{head}=': a solver cannot tell the two apart")
        known = ", ".join((*_COMMANDS, "and", "or", *_COMPARISONS, "+", "-", "*"))
        name = f"'{head}'" if isinstance(head, str) else "a '(' without an operator"
        raise Fault(f"{name} is not part of VNN-LIB 1.0 as supported here", f"known are {known}")

    def _command(self, head: str, arguments: list[Item]) -> None:
        if self.frames:
            self.place = self.frames[-1].token
            raise Fault("this '(' is not closed before the next command", "balance the parentheses")
        if head == "assert":
            if len(arguments) != 1:
                raise Fault(f"'assert' of {len(arguments)} formulas", "assert one")
            self.asserted.append(_formula(arguments[0]))
            return
        name, kind = arguments if len(arguments) == 2 else (None, None)
        match = _VARIABLE.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise Fault("this declaration does not name a variable", "write (declare-const X_0 Real), Y_0 for outputs")
        if kind != "Real":
            raise Fault(f"{name} is declared as {kind if isinstance(kind, str) else 'something'}", "only Real is known")
        if match[0] in self.variables:
            raise Fault(f"{name} is declared twice", "remove one of the declarations")
        index = int(match[2])
        self.variables[match[0]] = index if match[1] == "X" else -1 - index

    def _connect(self, head: str, arguments: list[Item]) -> Formula:
        if not arguments:
            raise Fault(f"'{head}' of nothing", "give it at least one formula")
        if head == "or":
            return any_of([_formula(argument) for argument in arguments])
        plain = tuple(argument for argument in arguments if isinstance(argument, int))
        if len(plain) == len(arguments):
            return [plain]
        return all_of([[plain], *(_formula(argument) for argument in arguments if not isinstance(argument, int))])

    def _compare(self, operator: str, left: Item, right: Item) -> Item:
        """A comparison as the number of its atom, or as a formula where it is not just one."""
        if operator != "=" and isinstance(left, str) and isinstance(right, str) and left in self.variables:
            number = parse_number(right)
            if number is not None:  # nearly all comparisons of a file
                bound = self.atoms.at_most if operator == "<=" else self.atoms.at_least
                return bound(self.variables[left], number)
        a, b = self._term(left), self._term(right)
        parts: list[Formula] = []
        if operator != ">=":
            parts.append(self.atoms.at_most_zero(a, b))
        if operator != "<=":
            parts.append(self.atoms.at_most_zero(b, a))
        formula = all_of(parts)
        return formula[0][0] if len(formula) == 1 and len(formula[0]) == 1 else formula

    def _term(self, item: Item) -> Linear:
        if isinstance(item, Linear):
            return item
        if not isinstance(item, str):
            raise Fault("a formula stands where a number is needed", "compare linear terms")
        if item in self.variables:
            return Linear({self.variables[item]: Fraction(1)}, Fraction(0))
        value = parse_number(item)
        if value is not None:
            return Linear({}, value)
        if _VARIABLE.fullmatch(item):
            raise Fault(f"{item} is not declared", f"add (declare-const {item} Real) before its first use")
        raise Fault(f"{item!r} is neither a number nor a declared variable", "correct it")


def _formula(item: Item) -> Formula:
    if isinstance(item, int):
        return [(item,)]
    if isinstance(item, list):
        return item
    name = f"'{item}'" if isinstance(item, str) else "a number"
    raise Fault(f"{name} stands where a formula is needed", "use a comparison, 'and' or 'or'")
