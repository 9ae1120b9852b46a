"""What the flags of `verify` ask for, checked as far as that needs no file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verifier.errors import InputError
from verifier.specs.exact import parse_epsilon, parse_number, to_float

#: more inputs than any data set has; keeps a mistyped range from filling the memory
_MOST = 1_000_000
#: bytes; the tensors of a small network take about as much
_LEAST_MEMORY = 1 << 20
NORMS = ("inf", "2", "1")
_SUCH_AS = {"--index": "give the inputs, such as 0:20", "--epsilon": "give the radius, such as 8/255"}


@dataclass(frozen=True)
class Inputs:
    """Queries of robustness around inputs of a data set.

    Args:
        dataset: a name, or a path that ends in ``.npz``.
        index: which inputs, as text, to be read against the size of the data set.
        indices: the same, read against no size; each is a query.
        epsilon: radius in the unit of the data.
        norm: one of `NORMS`.
        targets: the class that must not be reached, or None for every other class.
        clip: whether the input stays in [0, 1].
        mean, std: per-channel normalisation between the data and the network, or None.
        folder: where the standard files are, or None for the usual places.
    """

    dataset: str
    index: str
    indices: tuple[int, ...]
    epsilon: float
    norm: str
    targets: int | None
    clip: bool
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    folder: Path | None

    def choice(self) -> dict[str, Any]:
        """The fields that describe which inputs are meant and how far apart two of them are, without a radius."""
        return {
            "dataset": self.dataset,
            "norm": self.norm,
            "clip": self.clip,
            "mean": self.mean,
            "std": self.std,
        }

    def spec(self, number: int, label: int | None) -> dict[str, Any]:
        """The JSON field ``spec`` of one of the queries, whose input has a label (None where it is not known yet)."""
        return {
            "dataset": self.dataset,
            "index": self.indices[number],
            "label": label,
            "epsilon": self.epsilon,
            "norm": self.norm,
            "targets": "all" if self.targets is None else self.targets,
            "clip": self.clip,
            "mean": self.mean,
            "std": self.std,
        }


@dataclass(frozen=True)
class Request:
    """One call of `verify`: the network, and a specification or inputs of a data set."""

    network: Path
    what: Path | Inputs

    @property
    def count(self) -> int:
        """How many queries it holds."""
        return len(self.what.indices) if isinstance(self.what, Inputs) else 1


def query_flags(
    index: str | None,
    epsilon: str | None,
    norm: str | None,
    targets: str | None,
    mean: str | None,
    std: str | None,
    no_clip: bool,
    data_dir: Path | None,
) -> dict[str, Any]:
    """The flags that describe inputs of a data set, by their names on the command line; None where one is not given."""
    flags = {"--index": index, "--epsilon": epsilon, "--norm": norm, "--targets": targets, "--mean": mean, "--std": std}
    return {**flags, "--no-clip": no_clip or None, "--data-dir": data_dir}


def choose(
    spec: Path | None, dataset: str | None, flags: Mapping[str, Any], needed: Sequence[str] = ("--index", "--epsilon")
) -> Path | Inputs:
    """What is asked: the specification, or the inputs that ``flags`` (by their names on the command line) describe.

    Args:
        needed: flags that have to be given with a data set; without ``--epsilon`` the radius is 0.

    Raises:
        InputError: both or neither is given, a flag is missing, has a bad value, or has no meaning beside the other.
    """
    if dataset is None:
        if spec is None:
            raise InputError("command line", "there is nothing to verify", "give a VNN-LIB file, or --dataset")
        extra = [flag for flag, value in flags.items() if value is not None]
        if extra:
            raise InputError(extra[0], "speaks of a data set, but a specification is given", "leave one of them out")
        return spec
    if spec is not None:
        raise InputError(f"--dataset {dataset}", f"a specification is given as well ({spec})", "leave one of them out")
    missing = [flag for flag in needed if flags[flag] is None]
    if missing:
        raise InputError(missing[0], "is missing", f"--dataset needs it: {_SUCH_AS[missing[0]]}")
    from verifier.specs.datasets import parse_index  # numpy behind it

    return Inputs(
        dataset,
        flags["--index"],
        tuple(parse_index(flags["--index"], _MOST)),
        parse_epsilon(flags["--epsilon"] or "0"),
        parse_norm(flags["--norm"] or "inf"),
        parse_targets(flags["--targets"] or "all"),
        not flags["--no-clip"],
        parse_channels(flags["--mean"], "--mean"),
        parse_channels(flags["--std"], "--std"),
        flags["--data-dir"],
    )


def chosen(dataset: str | None, flags: dict[str, Any]) -> Inputs:
    """The inputs of a data set that flags describe.

    Raises:
        InputError: there is no data set, or as of `choose`.
    """
    if dataset is None:
        raise InputError("--dataset", "is missing", "name the data, such as digits, or an .npz file with x and y")
    inputs = choose(None, dataset, flags, ("--index",))
    assert isinstance(inputs, Inputs)
    return inputs


def parse_norm(text: str) -> str:
    """One of `NORMS`.

    Raises:
        InputError: something else.
    """
    if text not in NORMS:
        raise InputError(f"--norm {text}", "is not a norm that is known here", f"choose one of {', '.join(NORMS)}")
    return text


def parse_targets(text: str) -> int | None:
    """``all``, or one class.

    Raises:
        InputError: neither.
    """
    if text == "all":
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InputError(f"--targets {text}", "is neither 'all' nor a class", "write all, or a number such as 3")
    return int(text)


def parse_channels(text: str | None, flag: str) -> tuple[float, ...] | None:
    """Comma-separated decimals, one per channel, or one for all.

    Raises:
        InputError: something else.
    """
    if text is None:
        return None
    numbers = [parse_number(part.strip()) for part in text.split(",")]
    if None in numbers:
        raise InputError(f"{flag} {text}", "is not a list of numbers", "write it like 0.49,0.48,0.45")
    return tuple(to_float(number, text, flag) for number in numbers if number is not None)


def parse_memory(text: str) -> int:
    """Bytes of a size: a number and B, kB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024).

    Raises:
        InputError: something else, or less than anything could be computed with.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]?)(I?)B?", text.strip().upper())
    if found is None:
        raise InputError(f"--memory {text}", "is not a size", "write it like 4GiB or 500MB")
    number, prefix, binary = found.groups()
    size = int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix or " "))
    if size < _LEAST_MEMORY:
        raise InputError(f"--memory {text}", "is too little to compute with", f"give at least {_LEAST_MEMORY >> 20}MiB")
    return size


def parse_device(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; whether there is such a device is seen later.

    Raises:
        InputError: something else.
    """
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,4})?", text):
        raise InputError(f"--device {text}", "is not a device", "choose auto, cpu or an existing cuda:N")
    return text
