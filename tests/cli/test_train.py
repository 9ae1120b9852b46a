"""`verifier train`: from a command line to a folder whose network `verifier verify` certifies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from verifier.cli import train_command

TINY = """
dataset: digits
network: mlp
network_options: {width: 16}
epochs: 5
learning_rate: 0.01
batch_size: 64
epsilon: 0.03
evaluation: {images: 12, methods: [ibp, crown], complete_images: 12, radius_images: 6, radius_steps: 3, timeout: 20}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_train_certify_and_verify_agree(command: Command, config: Path, tmp_path: Path):
    out = tmp_path / "run"
    done = command("train", "--config", config, "--out", out, "--certify", "--adaptive-radii", "--kappa", "0.2")
    assert done.status == 0, done.err
    assert "12 of 12" not in done.out and f"results in {out}" in done.out
    expected = {"model.onnx", "config.yaml", "metrics.json", "training.png", "certified.png", "README.md", "last.ckpt"}
    assert expected <= {path.name for path in out.iterdir()}
    assert not [path for path in out.iterdir() if "draft" in path.name]
    test = json.loads((out / "metrics.json").read_text())["test"]
    card = (out / "README.md").read_text()
    assert f"{test['certified']['crown']['accuracy']:.2%}" in card and "adaptive radii" in card

    def verified(method: str) -> int:
        network = out / "model.onnx"
        query = ("--dataset", "digits", "--index", "0:12", "--epsilon", "0.03", "--method", method)
        found = command("verify", network, *query, "--json", "-", "--quiet")
        return [one["verdict"] for one in json.loads(found.out)["results"]].count("verified")

    for method in ("ibp", "crown"):
        assert verified(method) == round(test["certified"][method]["accuracy"] * 12)
    assert verified("auto") == test["complete"]["verified"] > 0


def test_resume_takes_the_configuration_from_the_folder(command: Command, config: Path, tmp_path: Path):
    out = tmp_path / "run"
    stopped = command("train", "--config", config, "--out", out, "--max-steps", "7", "--json", "-")
    first = json.loads(stopped.out)["results"][0]
    assert (first["steps"], first["total_steps"]) == (7, 90)
    resumed = command("train", "--out", out, "--resume", "--json", "-")
    assert (resumed.status, resumed.err) == (0, "")
    assert json.loads(resumed.out)["results"][0]["steps"] == 90
    other = command("train", "--out", out, "--resume", "--epsilon", "0.04")
    assert (other.status, other.out) == (2, "")
    assert "was made with epsilon 0.03, now it is 0.04" in other.err and other.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--network", "cnn9"), "--network cnn9: is not known"),
        (("--loss", "hope"), "--loss: 'hope' is unknown"),
        (("--dataset", "cats"), "--dataset: 'cats' is not known"),
        (("--dataset", "mnist", "--data-dir", "/nowhere"), "train-images-idx3-ubyte"),
        (("--epsilon", "-0.1"), "--epsilon"),
        (("--epochs", "0"), "--epochs"),
        (("--kappa", "1.5"), "kappa"),
        (("--loss", "sovr", "--sovr-share", "1.5"), "sovr_share"),
        (("--loss", "tsovr", "--sovr-weight", "-1"), "sovr_weight"),
        (("--precision", "float8"), "--precision"),
        (("--config", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("--resume",), "no such checkpoint"),
        (("--device", "cuda:99"), "--device"),
        (("--json", "/nowhere/m.json"), "--json"),
        (("--network", "mlp", "--certify", "--dataset", "digits.npz"), "digits.npz"),
    ],
)
def test_bad_input_is_one_sentence(command: Command, tmp_path: Path, flags: tuple[str, ...], said: str):
    words = ["--dataset", "digits", "--network", "mlp", "--epsilon", "0.02", *flags]
    done = command("train", *words, "--out", tmp_path / "run")
    assert done.status == 2, done.err
    assert said in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_named(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "verifier.training.config", raising=False)
    done = command("train", "--dataset", "digits", "--epsilon", "0.02", "--out", tmp_path / "run")
    assert done.status == 2
    assert "needs yaml, which is not installed; pip install 'verifier[train]'" in done.err


def test_another_missing_module_is_no_extra():
    error = ModuleNotFoundError("No module named 'my_nets'", name="my_nets")
    assert train_command._missing(error) is error


def test_quiet_prints_nothing(command: Command, config: Path, tmp_path: Path):
    done = command("train", "--config", config, "--out", tmp_path / "run", "--max-steps", "2", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.slow
def test_two_processes_share_every_batch(config: Path, tmp_path: Path):
    out = tmp_path / "run"
    words = ["train", "--config", str(config), "--out", str(out), "--epochs", "1", "--max-steps", "4"]
    line = [sys.executable, "-m", "verifier", *words, "--device", "cpu", "--devices", "2", "--json", "-"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)["results"]
    assert found["steps"] == 4
