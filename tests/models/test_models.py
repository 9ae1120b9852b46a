"""The networks of models/: their files, what the manifest says of them, and the scripts that made them."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from models import make
from models.architectures import BUILDERS
from models.data import Images, digits, mnist
from models.export import to_onnx
from models.training import Attack, Recipe, attacked_accuracy, pgd, train
from verifier.errors import InputError

FOLDER = Path(make.__file__).parent
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
MODELS: list[dict[str, Any]] = MANIFEST["models"]
each_model = pytest.mark.parametrize("entry", MODELS, ids=lambda e: e["file"])
each_network = pytest.mark.parametrize("kind, side", [(k, s) for k in BUILDERS for s in (8, 28)])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def logits(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def random_network(kind: str, side: int) -> nn.Sequential:
    """In evaluation mode, with statistics of batch normalisation that are not the neutral ones."""
    torch.manual_seed(3)
    network = BUILDERS[kind](side)
    network.train()(torch.rand(20, 1, side, side))
    return network.eval()


def test_manifest_lists_every_file_once():
    files = [e["file"] for e in MODELS]
    assert len(files) == len(set(files))
    assert set(files) == {p.name for p in FOLDER.glob("*.onnx")}
    assert {(e["dataset"], e["kind"]) for e in MODELS} == {(d, k) for d in make.SIDES for k in BUILDERS}


@pytest.mark.parametrize("entry", MODELS + MANIFEST["samples"], ids=lambda e: e["file"])
def test_hash_matches_the_manifest(entry: dict[str, Any]):
    assert hashlib.sha256((FOLDER / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_files_stay_small():
    sizes = [p.stat().st_size for p in FOLDER.iterdir() if p.is_file()]
    assert max(sizes) < 700_000
    assert sum(sizes) < 4_000_000


@each_model
def test_file_has_a_dynamic_batch_and_finite_logits(entry: dict[str, Any]):
    content = (FOLDER / entry["file"]).read_bytes()
    side = make.SIDES[entry["dataset"]]
    x = np.random.default_rng(0).random((5, 1, side, side), np.float32)
    together = logits(content, x)
    assert together.shape == (5, 10)
    assert np.isfinite(together).all()
    one_by_one = np.concatenate([logits(content, row[None]) for row in x])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-4)


@each_model
def test_parameters_match_the_manifest(entry: dict[str, Any]):
    network = BUILDERS[entry["kind"]](make.SIDES[entry["dataset"]])
    assert sum(p.numel() for p in network.parameters()) == entry["parameters"]
    weights = onnx.load(FOLDER / entry["file"]).graph.initializer
    statistics = sum(b.numel() for b in network.buffers() if b.ndim)
    assert sum(int(np.prod(w.dims)) for w in weights) == entry["parameters"] + statistics


def test_operators_that_the_reader_has_to_meet_are_there():
    def ops(name: str) -> set[str]:
        return {node.op_type for node in onnx.load(FOLDER / name).graph.node}

    assert {"BatchNormalization", "Add"} <= ops("digits_resnet.onnx") & ops("mnist_resnet.onnx")
    assert "MaxPool" in ops("digits_cnn.onnx")
    assert "AveragePool" in ops("mnist_cnn.onnx")
    assert {"Sigmoid", "Tanh"} <= ops("digits_smooth.onnx") & ops("mnist_smooth.onnx")


@pytest.mark.parametrize("entry", [e for e in MODELS if e["dataset"] == "digits"], ids=lambda e: e["file"])
def test_digits_accuracy_is_the_manifest_value(entry: dict[str, Any]):
    test = digits()[1]
    assert len(test.x) == 500
    # Processors round differently, which may move a single image across a boundary.
    assert make.accuracy(FOLDER / entry["file"], test) == pytest.approx(entry["accuracy"], abs=1 / 500 + 1e-9)
    assert entry["accuracy"] > 0.9


@pytest.mark.parametrize("entry", [e for e in MODELS if e["dataset"] == "mnist"], ids=lambda e: e["file"])
def test_mnist_samples_are_classified_as_the_accuracy_promises(entry: dict[str, Any]):
    with np.load(FOLDER / "mnist_samples.npz") as samples:
        x, y = samples["x"], samples["y"]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((64, 1, 28, 28), np.float32, (64,), np.int64)
    assert x.min() == 0 and x.max() == 1
    assert entry["accuracy"] >= 0.97
    assert make.accuracy(FOLDER / entry["file"], Images(x, y, entry["dataset"])) >= 60 / 64


@pytest.mark.parametrize("dataset", make.SIDES)
def test_adversarial_training_made_the_most_robust_network(dataset: str):
    shares = {e["kind"]: e["attacked"]["accuracy"] for e in MODELS if e["dataset"] == dataset}
    assert shares["robust"] > max(share for kind, share in shares.items() if kind != "robust") + 0.1


def test_readme_shows_the_manifest():
    assert make.table(MANIFEST) in make.README.read_text()


@each_network
def test_export_computes_what_torch_computes(kind: str, side: int):
    network = random_network(kind, side)
    x = torch.rand(4, 1, side, side)
    found = logits(to_onnx(network, side).SerializeToString(), x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(found, network(x).numpy(), rtol=1e-4, atol=1e-5)


def test_export_refuses_a_layer_without_an_onnx_form():
    with pytest.raises(TypeError, match="no ONNX form for the layer GELU"):
        to_onnx(nn.Sequential(nn.Flatten(), nn.GELU()), 8)


@each_network
def test_attack_stays_in_its_ball_and_raises_the_loss(kind: str, side: int):
    network = random_network(kind, side)
    x, y = torch.rand(6, 1, side, side), torch.arange(6)
    moved = pgd(network, x, y, Attack(0.05, 5), torch.Generator().manual_seed(0))
    assert (moved - x).abs().max() <= 0.05 + 1e-6
    assert moved.min() >= 0 and moved.max() <= 1
    with torch.no_grad():
        loss = nn.functional.cross_entropy
        assert loss(network(moved), y) > loss(network(x), y)


def test_training_repeats_itself_and_learns():
    images, test = digits()
    recipe = Recipe(epochs=2, batch=32, rate=5e-3, attack=Attack(0.05, 2))
    contents = []
    for _ in range(2):
        torch.manual_seed(0)
        network = BUILDERS["mlp"](8)
        train(network, images, recipe)
        contents.append(to_onnx(network, 8).SerializeToString(deterministic=True))
    assert contents[0] == contents[1]
    assert float(np.mean(logits(contents[0], test.x).argmax(1) == test.y)) > 0.7
    assert attacked_accuracy(network, test, Attack(0.3, 5)) < 0.5


def test_known_verdicts_outlive_only_an_unchanged_file():
    old = {"file": "digits_mlp.onnx", "sha256": "a", "known": [{"verdict": "verified"}]}
    manifest = {"samples": [], "models": [old]}
    same = make.merge(manifest, {"file": "digits_mlp.onnx", "sha256": "a"})
    changed = make.merge(manifest, {"file": "digits_mlp.onnx", "sha256": "b"})
    assert same["models"] == [old]
    assert changed["models"] == [{"file": "digits_mlp.onnx", "sha256": "b"}]


def test_mnist_is_read_from_its_published_format(tmp_path: Path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    for prefix in ("train", "t10k"):
        sizes = np.array([2051, 2, 28, 28], ">u4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(sizes + pixels.tobytes()))
        sizes = np.array([2049, 2], ">u4").tobytes()
        (raw / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(sizes + bytes([7, 2])))
    for part in mnist(tmp_path):
        np.testing.assert_array_equal(part.x * np.float32(255), pixels[:, None].astype(np.float32))
        assert part.y.tolist() == [7, 2]


def test_absent_mnist_is_one_sentence_and_status_2(tmp_path: Path, root: Path):
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        mnist(tmp_path)
    command = [sys.executable, "-m", "models.make", "--dataset", "mnist", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--data-dir" in done.stderr
