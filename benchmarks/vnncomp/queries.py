"""Queries of VNN-COMP benchmarks with the verdicts that the competition's tools agreed on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

FAMILIES = (
    "acasxu mnist_fc oval21 cifar10_resnet sri_resnet_a eran verivital marabou-cifar10 rl_benchmarks "
    "reach_prob_density collins_rul_cnn tllverifybench cifar_biasfield safenlp linearizenn cora dist_shift"
).split()


@dataclass(frozen=True)
class Instance:
    """One query.

    Args:
        family: its benchmark.
        network, spec: files.
        expected: ``sat``, ``unsat``, ``unknown`` or ``disputed``.
    """

    family: str
    network: Path
    spec: Path
    expected: str

    @property
    def key(self) -> str:
        return f"{self.family}/{self.network.name}/{self.spec.name}"


def read_instances(
    folder: Path, families: tuple[str, ...], stride: int = 1, only: Path | None = None
) -> list[Instance]:
    """Every `stride`-th query of each family's ``instances.csv``, in order.

    Args:
        only: a CSV file with names of networks and specifications in columns ``onnx`` and ``vnnlib``: no others.

    Raises:
        SystemExit: a family has no folder, or there is no such file; names it.
    """
    wanted = None if only is None else {(row["onnx"], row["vnnlib"]) for row in _table(only)}
    instances = []
    for family in families:
        for row in _table(folder / family / "instances.csv")[::stride]:
            if wanted is None or tuple(Path(row[key]).name for key in ("onnx", "vnnlib")) in wanted:
                network, spec = (_file(folder / family / row[key]) for key in ("onnx", "vnnlib"))
                instances.append(Instance(family, network, spec, row["expected"]))
    return instances


def _table(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise SystemExit(f"{path}: not found; give the folder of the benchmarks with --data, a list with --only")
    with path.open() as file:
        return list(csv.DictReader(file))


def _file(path: Path) -> Path:
    zipped = path.with_name(path.name + ".gz")
    return zipped if zipped.exists() else path
