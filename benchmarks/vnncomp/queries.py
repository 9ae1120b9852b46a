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


def read_instances(folder: Path, families: tuple[str, ...], stride: int) -> list[Instance]:
    """Every `stride`-th query of each family's ``instances.csv``, in order.

    Raises:
        SystemExit: a family has no folder; names it.
    """
    instances = []
    for family in families:
        table = folder / family / "instances.csv"
        if not table.exists():
            raise SystemExit(f"{table}: not found; give the folder of the benchmarks with --data")
        with table.open() as file:
            rows = list(csv.DictReader(file))[::stride]
        for row in rows:
            network, spec = (_file(folder / family / row[key]) for key in ("onnx", "vnnlib"))
            instances.append(Instance(family, network, spec, row["expected"]))
    return instances


def _file(path: Path) -> Path:
    zipped = path.with_name(path.name + ".gz")
    return zipped if zipped.exists() else path
