"""Every network of the benchmark families computes what onnxruntime computes, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.graph.parity import compare, compare_shapes, parse
from verifier.errors import InputError
from verifier.graph import coverage, load

FAMILIES = (
    "acasxu",
    "mnist_fc",
    "oval21",
    "cifar10_resnet",
    "sri_resnet_a",
    "eran",
    "verivital",
    "marabou-cifar10",
    "rl_benchmarks",
    "reach_prob_density",
    "collins_rul_cnn",
    "tllverifybench",
    "cifar_biasfield",
    "safenlp",
    "linearizenn",
    "cora",
    "dist_shift",
)


def check_folder(folder: Path, pattern: str) -> None:
    paths = sorted(folder.glob(pattern))
    assert paths, f"no networks in {folder}"
    for path in paths:
        graph, model = load(path), parse(path)
        compare(graph, model, samples=1)
        compare_shapes(graph, model)
        assert all(row.supported for row in coverage(path))


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, shared: Path):
    check_folder(shared / "vnncomp" / family / "onnx", "*.onnx*")


def test_published_tables(shared: Path):
    check_folder(shared / "eran", "*.onnx")


@pytest.mark.parametrize(
    ("family", "missing"),
    [
        ("vit", {"MatMul", "Softmax"}),
        ("ml4acopf", {"Sin", "Cos", "Pow", "Mul"}),
        ("traffic_signs_recognition", {"Sign"}),
    ],
)
def test_unsupported_networks_name_every_node(family: str, missing: set[str], shared: Path):
    for path in sorted((shared / "vnncomp" / family / "onnx").glob("*.onnx*")):
        refused = [row for row in coverage(path) if not row.supported]
        assert {row.op for row in refused} == missing
        with pytest.raises(InputError) as error:
            load(path)
        assert all(f"'{row.name}'" in str(error.value) for row in refused)
