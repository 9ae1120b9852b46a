"""The commands of `margins`: tables, files, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.analysis.networks import random_dense
from tests.cli.conftest import Command

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, inputs with the classes that it predicts but for a few, and a file of their brackets."""
    import verifier
    from verifier.analysis.measured import Measured, document

    path = tmp_path_factory.mktemp("margins")
    graph = verifier.load(random_dense(path / "net.onnx", (4, 10, 3), 10))
    random_dense(path / "other.onnx", (4, 10, 3), 6)
    x = np.random.default_rng(0).uniform(size=(2 * COUNT, 4)).astype(np.float32)
    found = verifier.radii(graph, list(x), complete=None, timeout=None)
    y = np.array([(bracket.label + (i % 10 == 0)) % 3 for i, bracket in enumerate(found)])
    np.savez(path / "data.npz", x=x, y=y)
    np.savez(path / "wrong.npz", x=x, y=(np.array([bracket.label for bracket in found]) + 1) % 3)
    spec = {"dataset": str(path / "data.npz"), "norm": "inf", "clip": True, "mean": None, "std": None}
    assert graph.file is not None
    measured = [
        Measured("net.onnx", graph.file.sha256, {**spec, "index": i, "label": int(y[i])}, bracket)
        for i, bracket in enumerate(found)
    ]
    (path / "first.json").write_text(document(measured[:COUNT], {}))
    (path / "rest.json").write_text(document(measured[COUNT:], {}))
    return path


@pytest.fixture
def brackets(folder: Path) -> tuple[object, ...]:
    return (folder / "net.onnx", "--brackets", folder / "first.json")


def test_report(command: Command, folder: Path, brackets: tuple, tmp_path: Path):
    results, picture, pairs = tmp_path / "r.json", tmp_path / "r.svg", tmp_path / "p.svg"
    done = command(
        *("margins", "report", *brackets, "--epsilon", "0.1", "--score", "logit-margin,feature-margin,crown-margin"),
        *("--large", f"0:{2 * COUNT}", "--by-class", "--json", results, "--plot", picture, "--pictures", pairs),
    )
    assert (done.status, done.err) == (0, ""), done.err
    assert "feature-margin, by predicted class" in done.out and "robust accuracy at 0.1" in done.out
    made = json.loads(results.read_text())
    assert made["indices"] == list(range(COUNT)) and made["epsilon"] == 0.1
    for one in made["scores"]:
        assert one["tau"]["low"] <= one["tau"]["high"] and one["estimate"]["large"] == COUNT
        assert len(one["inconsistent_pairs"]) == min(5, one["tau"]["discordant"])
    assert "<svg" in picture.read_text() and "<svg" in pairs.read_text()


def test_report_that_makes_its_brackets(command: Command, folder: Path):
    data = ("--dataset", folder / "data.npz", "--index", "1:8", "--timeout", "1")
    done = command("margins", "report", folder / "net.onnx", *data, "--score", "logit-margin")
    assert (done.status, done.err) == (0, "") and "7 inputs (0 misclassified)" in done.out


@pytest.mark.parametrize("rule", ["conformal", "selective"])
def test_calibrate_and_screen(command: Command, folder: Path, brackets: tuple, tmp_path: Path, rule: str):
    detector, model, picture, flags = (tmp_path / name for name in ("d.json", "d.onnx", "d.svg", "f.json"))
    made = ("--rule", rule, "--out", detector, "--onnx", model, "--plot", picture)
    done = command("margins", "calibrate", *brackets, "--epsilon", "0.02", "--alpha", "0.2", *made)
    assert (done.status, done.err) == (0, ""), done.err
    said = json.loads(detector.read_text())
    assert (said["rule"], said["level"], said["epsilon"], said["norm"], said["n"]) == (rule, 0.2, 0.02, "inf", COUNT)
    assert said["guarantee"] in done.out and said["scope"].startswith("i.i.d. data only")
    data = ("--dataset", folder / "data.npz", "--index", f"{COUNT}:{2 * COUNT}")
    done = command("margins", "screen", folder / "net.onnx", detector, *data, "--json", flags)
    assert (done.status, done.err) == (0, "") and f"of {COUNT} inputs flagged" in done.out
    rows = json.loads(flags.read_text())["results"]
    x = np.load(folder / "data.npz")["x"][COUNT:]
    (flag,) = onnxruntime.InferenceSession(model).run(["flag"], {"x": x})
    assert [row["flag"] for row in rows] == np.asarray(flag).tolist()
    assert "<svg" in picture.read_text()


def test_a_learned_score(command: Command, folder: Path, brackets: tuple):
    fit = ("--fit", folder / "rest.json", "--fit-on", "logits", "--fit-target", "max", "--fit-epochs", "10")
    done = command("margins", "report", *brackets, "--score", "pseudo-margin", *fit, "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_logits(command: Command, folder: Path, tmp_path: Path):
    networks, results, picture = (folder / "net.onnx", folder / "other.onnx"), tmp_path / "l.json", tmp_path / "l.svg"
    data = ("--dataset", folder / "data.npz", "--index", "0:40")
    done = command("margins", "logits", *networks, *data, "--json", results, "--plot", picture)
    assert (done.status, done.err) == (0, "") and "other, by class" in done.out
    first, second = json.loads(results.read_text())["networks"]
    assert first["confidence_difference"]["mean"] == 0 != second["confidence_difference"]["mean"]
    assert "<svg" in picture.read_text()


def test_bad_input(command: Command, folder: Path, brackets: tuple, tmp_path: Path):
    calibrate = ("margins", "calibrate", *brackets, "--epsilon", "0.02")
    detector = tmp_path / "d.json"
    assert command(*calibrate, "--alpha", "0.2", "--out", detector, "--quiet").status == 0
    data = ("--dataset", folder / "data.npz", "--index", "0:5")
    wrong = ("--dataset", folder / "wrong.npz", "--index", "0:5", "--timeout", "1")
    empty = tmp_path / "empty.json"
    empty.write_text('{"results": []}')
    for arguments, message in (
        ((*calibrate, "--alpha", "0.001"), "give at least 999"),
        ((*calibrate, "--rule", "nonsense"), "--rule nonsense"),
        ((*calibrate, "--score", "nonsense"), "'nonsense' is not known"),
        ((*calibrate, "--score", "crown-margin", "--onnx", tmp_path / "x.onnx"), "cannot be written as ONNX"),
        ((*calibrate, "--score", "pseudo-margin"), "--fit: is missing"),
        ((*calibrate, "--score", "pseudo-margin", "--fit", folder / "first.json"), "is measured as well"),
        ((*calibrate, "--dataset", "digits"), "is known from the brackets"),
        (("margins", "report", folder / "net.onnx", *wrong, "--epsilon", "0.1"), "all 5 inputs are misclassified"),
        (("margins", "report", folder / "other.onnx", *brackets[1:]), "SHA-256"),
        (("margins", "report", *brackets, "--epsilon", "0"), "is no radius"),
        (("margins", "report", folder / "net.onnx"), "--brackets: is missing"),
        (("margins", "calibrate", folder / "net.onnx", "--brackets", empty, "--epsilon", "0.1"), "there is no bracket"),
        (("margins", "screen", folder / "other.onnx", detector, *data), "SHA-256"),
        (("margins", "screen", folder / "net.onnx", empty, *data), "is no detector"),
    ):
        done = command(*arguments)
        assert done.status == 2 and message in done.err and len(done.err.splitlines()) == 1, (arguments, done)


def test_students(command: Command, root: Path, tmp_path: Path):
    results = tmp_path / "s.json"
    few = ("--index", "0:4", "--train", "0:100", "--epochs", "2", "--changes", "none,average", "--epsilon", "0.01")
    done = command(
        "margins", "distil", root / "models" / "digits_mlp.onnx", "--dataset", "digits", *few, "--json", results
    )
    assert (done.status, done.err) == (0, ""), done.err
    assert set(json.loads(results.read_text())["students"]) == {"none", "average"}
    for flags, message in ((("--changes", "x"), "'x' is not known"), (("--temperature", "0"), "is not positive")):
        done = command("margins", "distil", root / "models" / "digits_mlp.onnx", "--dataset", "digits", *few, *flags)
        assert done.status == 2 and message in done.err
