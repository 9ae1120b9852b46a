"""Trains the networks of this folder and writes their files, the manifest and the table in the README.

python -m models.make --dataset digits
python -m models.make --dataset mnist --data-dir data --only resnet
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from models.architectures import BUILDERS
from models.data import Images, digits, mnist
from models.export import to_onnx
from models.training import Attack, Recipe, attacked_accuracy, train
from verifier.errors import InputError

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "manifest.json"
README = FOLDER / "README.md"
SAMPLES = FOLDER / "mnist_samples.npz"
SAMPLE_COUNT = 64
TABLE_MARKS = ("<!-- table: written by models.make -->\n", "<!-- end of table -->\n")

SIDES = {"digits": 8, "mnist": 28}
RECIPES = {
    "digits": dict.fromkeys(("mlp", "cnn", "resnet", "smooth"), Recipe(40, 32, 5e-3))
    | {"robust": Recipe(40, 32, 5e-3, Attack(0.1, 7))},
    "mnist": dict.fromkeys(("mlp", "smooth"), Recipe(10, 128, 3e-3))
    | dict.fromkeys(("cnn", "resnet"), Recipe(3, 128, 3e-3))
    | {"robust": Recipe(3, 128, 3e-3, Attack(0.1, 7))},
}
#: The attack that every network is measured under, on at most this many of the first test images.
YARDSTICK, YARDSTICK_IMAGES = Attack(0.1, 40), 1000


def make(dataset: str, kind: str, images: Images, test: Images) -> dict[str, Any]:
    """Trains one network, writes ``<dataset>_<kind>.onnx``, and returns its entry in the manifest."""
    recipe = RECIPES[dataset][kind]
    torch.manual_seed(recipe.seed)  # layers draw their first weights from the global generator
    network = BUILDERS[kind](SIDES[dataset])
    train(network, images, recipe)
    content = to_onnx(network, SIDES[dataset]).SerializeToString(deterministic=True)
    file = FOLDER / f"{dataset}_{kind}.onnx"
    file.write_bytes(content)
    first = Images(test.x[:YARDSTICK_IMAGES], test.y[:YARDSTICK_IMAGES], dataset)
    return {
        "file": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "dataset": dataset,
        "kind": kind,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy": accuracy(file, test),
        "attacked": {
            "epsilon": YARDSTICK.epsilon,
            "steps": YARDSTICK.steps,
            "images": len(first.x),
            "accuracy": attacked_accuracy(network, first, YARDSTICK),
        },
        "training": str(recipe),
        "command": f"python -m models.make --dataset {dataset} --only {kind}",
    }


def accuracy(file: Path, images: Images) -> float:
    """The share of images that the network in ``file`` classifies rightly, computed by onnxruntime."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {"x": images.x})[0])
    return float(np.mean(logits.argmax(1) == images.y))


def merge(manifest: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The manifest with one entry replaced or added; ``known`` verdicts outlive only an unchanged file."""
    others = [e for e in manifest["models"] if e["file"] != entry["file"]]
    for old in manifest["models"]:
        if old["sha256"] == entry["sha256"] and "known" in old:
            entry = {**entry, "known": old["known"]}
    order = [f"{dataset}_{kind}.onnx" for dataset in SIDES for kind in BUILDERS]
    return {**manifest, "models": sorted([*others, entry], key=lambda e: order.index(e["file"]))}


def table(manifest: dict[str, Any]) -> str:
    """The README's table: one line per network."""
    lines = ["| file | parameters | accuracy | attacked | training |", "| --- | ---: | ---: | ---: | --- |"]
    for e in manifest["models"]:
        shares = f"{e['accuracy']:.2%} | {e['attacked']['accuracy']:.1%}"
        lines.append(f"| `{e['file']}` | {e['parameters']:,} | {shares} | {e['training']} |")
    return "\n".join(lines) + "\n"


def write_samples(test: Images) -> dict[str, Any]:
    """Writes the first MNIST test images to ``mnist_samples.npz`` and returns their entry in the manifest."""
    np.savez_compressed(SAMPLES, x=test.x[:SAMPLE_COUNT], y=test.y[:SAMPLE_COUNT])
    return {
        "file": SAMPLES.name,
        "sha256": hashlib.sha256(SAMPLES.read_bytes()).hexdigest(),
        "dataset": "mnist",
        "content": f"the first {SAMPLE_COUNT} test images",
    }


def write(manifest: dict[str, Any]) -> None:
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n")
    before, rest = README.read_text().split(TABLE_MARKS[0])
    after = rest.split(TABLE_MARKS[1])[1]
    README.write_text(before + TABLE_MARKS[0] + table(manifest) + TABLE_MARKS[1] + after)


def run(dataset: str, kinds: list[str], data_dir: Path) -> None:
    images, test = digits() if dataset == "digits" else mnist(data_dir)
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {"samples": [], "models": []}
    if dataset == "mnist":
        manifest["samples"] = [write_samples(test)]
    for kind in kinds:
        started = time.perf_counter()
        entry = make(dataset, kind, images, test)
        manifest = merge(manifest, entry)
        write(manifest)
        clean, attacked = entry["accuracy"], entry["attacked"]["accuracy"]
        seconds = time.perf_counter() - started
        print(f"{entry['file']}: accuracy {clean:.2%}, under attack {attacked:.1%}, {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.make", description="Train the networks again.")
    parser.add_argument("--dataset", choices=SIDES, required=True)
    parser.add_argument("--only", choices=BUILDERS, help="make this kind of network alone")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(os.environ.get("VERIFIER_DATA", "data")),
        help="the folder that has MNIST/raw with the published files; by default $VERIFIER_DATA or ./data",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order would train other weights
    torch.use_deterministic_algorithms(True)
    try:
        run(options.dataset, [options.only] if options.only else list(BUILDERS), options.data_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
