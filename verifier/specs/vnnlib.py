"""Reading VNN-LIB files of either version."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from verifier.errors import InputError
from verifier.specs.property import Query
from verifier.specs.vnnlib1 import parse_vnnlib1

_LARGEST = 1 << 28  # bytes, unpacked; four times the largest published query
_VERSION_2 = re.compile(r"^[^;\n]*\(\s*(vnnlib-version\b|declare-network\b)", re.MULTILINE)


def read_vnnlib(path: str | Path) -> Query:
    """Read a specification; which version it is written in shows in its content.

    Decimals are taken as they are written: bounds of inputs and outputs are rounded outwards for proofs and inwards
    for counterexamples, and coefficients are exact.

    Args:
        path: a ``.vnnlib`` file, or one compressed by gzip.

    Returns:
        One property for each distinct input box; regions are flat, (1, number of declared inputs).

    Raises:
        InputError: names the file, the line where there is one, and the mend.
    """
    text = _read_text(Path(path))
    if any(word in text for word in ("vnnlib-version", "declare-network")) and _VERSION_2.search(text):
        from verifier.specs.vnnlib2 import parse_vnnlib2  # the one user of the package vnnlib

        return parse_vnnlib2(text, str(path)).query(str(path))
    return parse_vnnlib1(text, str(path)).query(str(path))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise InputError(str(path), "no such file", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(str(path), "the gzip data is damaged", "compress or download it again") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the path and its rights") from None
    if len(data) > _LARGEST:
        raise InputError(str(path), f"unpacks to more than {_LARGEST >> 20} MiB", "split the specification")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(str(path), "is not text", "give a VNN-LIB file") from None
