"""Values of flags that several commands take, refused before the work starts."""

from __future__ import annotations

import math
from pathlib import Path

from verifier.cli.files import check_writable
from verifier.errors import InputError
from verifier.specs.exact import parse_epsilon

#: kinds of pictures
ENDINGS = (".png", ".svg", ".pdf")


def check_timeout(seconds: float | None) -> None:
    """None, or a limit that can be met.

    Raises:
        InputError: it is not positive, or not finite.
    """
    if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
        raise InputError(f"--timeout {seconds:g}", "is no time limit", "give a positive number of seconds")


def check_files(**paths: Path | None) -> None:
    """Refuse files, by the names of their flags, that could not be written later.

    Raises:
        InputError: as of `check_writable`.
    """
    for name, path in paths.items():
        if path is not None:
            check_writable(path, f"--{name}")


def check_picture(path: Path | None, flag: str = "--plot") -> None:
    """Refuse a picture that could not be written later.

    Raises:
        InputError: its ending is not known, or as of `check_writable`.
    """
    if path is None:
        return
    check_writable(path, flag)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{flag} {path}", "has an ending that is not known", f"choose {', '.join(ENDINGS)}")


def parse_positive(text: str, flag: str, what: str, example: str) -> float:
    """A positive number, decimal or a fraction.

    Args:
        what, example: what it is, and one that is good, for the error.

    Raises:
        InputError: it is none.
    """
    number = parse_epsilon(text, flag)
    if number == 0:
        raise InputError(f"{flag} {text}", f"is no {what}", f"give a positive number, such as {example}")
    return number


def parse_names(text: str) -> tuple[str, ...]:
    """Comma-separated names, without empty ones."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
