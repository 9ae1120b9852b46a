"""Bad input: one line on stderr that names the place, exit status 2, nothing on stdout, no traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.cli.conftest import Command, Outcome
from tests.cli.networks import DECLARED, SAFE, linear, model, save, tensor
from verifier.cli import verify_command

RELU = helper.make_node("Relu", ["x"], ["y"], name="act")


def refused(done: Outcome, *places: str) -> None:
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("verifier: ") and done.err.endswith("\n") and done.err.count("\n") == 1
    assert "Traceback" not in done.err and "internal error" not in done.err
    for place in places:
        assert place in done.err


def test_no_such_network(command: Command, spec: Path, tmp_path: Path):
    refused(command("verify", tmp_path / "absent.onnx", spec), "absent.onnx")


def test_a_folder_as_network(command: Command, spec: Path, tmp_path: Path):
    refused(command("verify", tmp_path, spec), str(tmp_path))


def test_no_such_specification(command: Command, network: Path, tmp_path: Path):
    refused(command("verify", network, tmp_path / "absent.vnnlib"), "absent.vnnlib")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_onnx(command: Command, network: Path, spec: Path, share: float):
    content = network.read_bytes()
    network.write_bytes(content[: int(share * len(content))])
    refused(command("verify", network, spec), "net.onnx")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"<html></html>", b"\x1f\x8b\x08 not gzip after all"])
def test_not_an_onnx(command: Command, network: Path, spec: Path, content: bytes):
    network.write_bytes(content)
    refused(command("verify", network, spec), "net.onnx")


def test_unsupported_operators_are_named_all_at_once(command: Command, spec: Path, tmp_path: Path):
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("GRU", ["b", "w", "w"], ["y"], name="second", hidden_size=1),
    ]
    network = save(model(nodes, [tensor("w", np.zeros((1, 3, 1)))]), tmp_path / "net.onnx")
    refused(command("verify", network, spec), "net.onnx", "Det", "first", "GRU", "second")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(command: Command, spec: Path, tmp_path: Path, value: float):
    network = save(linear(((1.0, value), (0.0, 1.0))), tmp_path / "net.onnx")
    refused(command("verify", network, spec), "net.onnx")


def test_several_inputs(command: Command, spec: Path, tmp_path: Path):
    node = helper.make_node("Add", ["x", "z"], ["y"], name="sum")
    network = save(model([node], inputs=[("x", (1, 2)), ("z", (1, 2))]), tmp_path / "net.onnx")
    refused(command("verify", network, spec), "net.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_external_data_outside_the_folder(command: Command, spec: Path, tmp_path: Path, location: str):
    made = linear()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (tmp_path / "inner").mkdir()
    refused(command("verify", save(made, tmp_path / "inner" / "net.onnx"), spec), "net.onnx")


def bomb_of_constants() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"], name="bomb"),
        helper.make_node("ReduceSum", ["big"], ["total"], name="total", keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"], name="sum"),
    ]
    return model(nodes, [tensor("size", [2**29], np.int64)])


def bomb_of_an_input() -> onnx.ModelProto:
    return model([RELU], inputs=[("x", (1, 2**29))], outputs=(1, 2**29))


def bomb_of_an_activation() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Expand", ["x", "size"], ["big"], name="bomb"),
        helper.make_node("ReduceSum", ["big", "axes"], ["y"], name="total", keepdims=0),
    ]
    return model(nodes, [tensor("size", [2**28, 1, 2], np.int64), tensor("axes", [0], np.int64)])


@pytest.mark.parametrize("make", [bomb_of_constants, bomb_of_an_input, bomb_of_an_activation])
def test_shape_bombs(command: Command, spec: Path, tmp_path: Path, make: Callable[[], onnx.ModelProto]):
    before = getrusage(RUSAGE_SELF).ru_maxrss
    refused(command("verify", save(make(), tmp_path / "net.onnx"), spec), "net.onnx", "entries")
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB: nothing of that size was made


BOUNDS = "(assert (>= X_0 0.0))\n(assert (<= X_0 1.0))\n(assert (>= X_1 0.0))\n"
SPECIFICATIONS = {
    "contradictory bounds": (SAFE.replace("(>= X_0 0.0)", "(>= X_0 2.0)"), "X_0"),
    "undeclared variable": (SAFE + "(assert (<= Y_2 0.0))\n", "Y_2"),
    "unbalanced, open": (SAFE + "(assert (<= Y_0 0.0)\n", "line"),
    "unbalanced, closed": (SAFE + ")\n", "line"),
    "strict inequality": (SAFE + "(assert (< Y_0 1.0))\n", "line"),
    "non-linear term": (SAFE + "(assert (<= (* Y_0 Y_1) 1.0))\n", "line"),
    "no upper bound": (DECLARED + BOUNDS + "(assert (<= Y_0 0.0))\n", "X_1"),
    "not a number": (SAFE + "(assert (<= Y_0 nan))\n", "nan"),
    "empty file": ("", "prop.vnnlib"),
}


@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_specifications(command: Command, network: Path, spec: Path, case: str):
    text, place = SPECIFICATIONS[case]
    spec.write_text(text)
    refused(command("verify", network, spec), "prop.vnnlib", place)


def test_a_specification_of_another_network(command: Command, network: Path, spec: Path):
    spec.write_text("(declare-const X_2 Real)\n(assert (>= X_2 0.0))\n(assert (<= X_2 1.0))\n" + SAFE)
    refused(command("verify", network, spec), "prop.vnnlib", "3", "2")


FLAGS = {"--index": "0", "--epsilon": "0.1"}


@pytest.fixture
def points(tmp_path: Path) -> Path:
    path = tmp_path / "points.npz"
    np.savez(path, x=np.full((3, 2), 0.5, dtype=np.float32), y=np.array([0, 1, 1]))
    return path


@pytest.mark.parametrize(
    "flag, value",
    [
        *(("--index", value) for value in ("3", "2:4", "0:99999999999", "-1", "a", "2:2", "")),
        *(("--epsilon", value) for value in ("-0.1", "nan", "inf", "many", "1/0", "1e400", "1e999999999")),
        *(("--norm", value) for value in ("3", "l0")),
        *(("--targets", value) for value in ("some", "-1", "0", "2")),
        *(("--mean", value) for value in ("nan", "a,b", "1,2,3", "1e400")),
        *(("--std", value) for value in ("0", "-1", "1e400")),
        *(("--timeout", value) for value in ("0", "-3", "soon", "nan", "inf")),
        *(("--threads", value) for value in ("0", "two", "100000")),
        *(("--seed", value) for value in ("-1", "x", str(2**63), "9" * 23)),
        *(("--device", value) for value in ("tpu", "meta", "", "cuda:9999", "cuda:-1", "cpu:0")),
        *(("--method", value) for value in ("magic", "")),
        *(("--json", value) for value in ("/", "/absent/folder/r.json")),
        *(("--witness", value) for value in ("/", "/absent/folder/w.txt")),
        ("--no-such-flag", "1"),
    ],
)
def test_flags(command: Command, network: Path, points: Path, flag: str, value: str):
    flags = [word for pair in {**FLAGS, flag: value}.items() for word in pair]
    places = {"--targets": "target"}  # the label and the targets are named by their function's words
    refused(command("verify", network, "--dataset", points, *flags), places.get(flag, flag))


def test_the_largest_seed(command: Command, network: Path, points: Path):
    flags = ("--dataset", points, "--index", "0", "--epsilon", "0.1", "--seed", 2**63 - 1)
    assert command("verify", network, *flags).status == 1


def test_a_bad_radius_is_refused_before_torch_is_loaded():
    program = (
        "import sys; from time import monotonic; from verifier.cli.main import run; "
        "from verifier.cli.session import Session; "
        "line = 'verify absent.onnx --dataset digits --index 0 --epsilon 1e400'.split(); "
        "print(run(line, Session(monotonic())), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "2 False\n" and done.stderr.startswith("verifier: --epsilon: ")


def test_what_onnxruntime_cannot_run(command: Command, spec: Path, tmp_path: Path):
    """ONNX's rules give this pool one window more than onnxruntime computes, which finds out when it runs."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["pooled"], name="pool", kernel_shape=[1], strides=[2], ceil_mode=1),
        helper.make_node("Gather", ["pooled", "twice"], ["taken"], name="take", axis=2),
        helper.make_node("Abs", ["taken"], ["size"], name="size"),
        helper.make_node("Neg", ["size"], ["y"], name="turn"),
    ]
    network = save(
        model(nodes, [tensor("twice", [0, 0], np.int64)], [("x", (1, 1, 2))], (1, 1, 2)), tmp_path / "net.onnx"
    )
    refused(command("verify", network, spec), "net.onnx", "onnxruntime cannot run it")


def test_unknown_data_sets_and_missing_files(command: Command, network: Path, tmp_path: Path):
    flags = ("--index", "0", "--epsilon", "0.1")
    refused(command("verify", network, "--dataset", "imagenet", *flags), "--dataset", "imagenet")
    refused(command("verify", network, "--dataset", tmp_path / "absent.npz", *flags), "absent.npz")
    refused(command("verify", network, "--dataset", "mnist", "--data-dir", tmp_path, *flags), "mnist", "--data-dir")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite(command: Command, network: Path, points: Path, value: float):
    np.savez(points, x=np.array([[0.5, value]]), y=np.array([0]))
    refused(command("verify", network, "--dataset", points, "--index", "0", "--epsilon", "0.1"), "points.npz")


def test_data_of_another_network(command: Command, network: Path):
    refused(command("verify", network, "--dataset", "digits", "--index", "0", "--epsilon", "0.1"), "digits", "64", "2")


def test_a_label_that_is_no_class(command: Command, network: Path, points: Path):
    np.savez(points, x=np.full((1, 2), 0.5), y=np.array([7]))
    refused(command("verify", network, "--dataset", points, "--index", "0", "--epsilon", "0.1"), "input 0", "7")


def test_data_outside_the_range(command: Command, network: Path, points: Path):
    np.savez(points, x=np.array([[0.5, 0.5], [0.5, 1.5]]), y=np.array([0, 0]))
    flags = ("--dataset", points, "--index", "1", "--epsilon", "0.1")
    refused(command("verify", network, *flags), "points.npz, input 1", "1.5", "--no-clip")
    assert command("verify", network, *flags, "--no-clip").status == 1


def test_what_does_not_fit_together(command: Command, network: Path, spec: Path):
    refused(command("verify", network), "--dataset")
    refused(command("verify", network, spec, "--epsilon", "0.1"), "--epsilon")
    refused(command("verify", network, spec, "--dataset", "digits"), "--dataset")
    refused(command("verify", network, "--dataset", "digits", "--index", "0"), "--epsilon")
    refused(command("verify", network, "--dataset", "digits", "--epsilon", "0.1"), "--index")


def test_usage(command: Command):
    refused(command(), "--help")
    refused(command("verify"), "NETWORK", "verifier verify --help")
    refused(command("prove"), "prove")
    refused(command("campaign", "net.onnx"), "campaign")  # in the contract, but a later release's


def test_a_bug_is_no_verdict(command: Command, network: Path, spec: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all things\non two lines")

    monkeypatch.setattr(verify_command, "decide", broken)
    done = command("verify", network, spec)
    assert (done.status, done.out, done.err.count("\n")) == (70, "", 1)
    assert "ZeroDivisionError: of all things on two lines" in done.err and "--debug" in done.err
    debugged = command("verify", network, spec, "--debug")
    assert debugged.status == 70 and "Traceback" in debugged.err


def test_an_interrupt_is_no_verdict(command: Command, network: Path, spec: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_command, "decide", interrupted)
    assert command("verify", network, spec).status == 130
