"""The folder of a finished run: network, metrics, curves, and a card that says what the network is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from verifier import __version__
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.specs.datasets import Dataset, load_dataset
from verifier.training.config import TrainConfig
from verifier.training.curves import save_certified, save_training
from verifier.training.evaluate import Progress, evaluate_network
from verifier.training.export import export
from verifier.training.loop import Trained

MODEL, METRICS, CARD = "model.onnx", "metrics.json", "README.md"
TRAINING_CURVES, CERTIFIED_CURVE = "training.png", "certified.png"
#: images at which the file's logits are compared with the module's
_SAMPLES = 16


def save_results(trained: Trained, config: TrainConfig, out: Path) -> dict[str, Any]:
    """Write the network as ``model.onnx``, checked by parity, with metrics, curves and card.

    Returns:
        The metrics.
    """
    graph = export(trained.network, trained.data.train.x[:1], out / MODEL, trained.data.validation.x[:_SAMPLES])
    metrics = {
        "verifier": __version__,
        "model": {"file": MODEL, "sha256": graph.file.sha256 if graph.file else None, "classes": trained.data.classes},
        "steps": trained.steps,
        "total_steps": trained.total,
        "history": trained.history,
    }
    save_training(trained.history, out / TRAINING_CURVES)
    _write(metrics, config, out)
    return metrics


def certify_results(
    metrics: dict[str, Any],
    graph: Graph,
    data: Dataset,
    config: TrainConfig,
    out: Path,
    device: str = "auto",
    progress: Progress = lambda said: None,
) -> dict[str, Any]:
    """Evaluate the exported network on the test split, and add what is found to metrics, curves and card.

    Returns:
        The metrics with the field ``test``.
    """
    report = evaluate_network(graph, data, config.epsilon, config.evaluation, device, config.seed, progress)
    if "radius" in report:
        save_certified(report, out / CERTIFIED_CURVE)
    metrics = {**metrics, "test": report}
    _write(metrics, config, out)
    return metrics


def load_test_data(config: TrainConfig, data_dir: Path | None) -> Dataset:
    """The data that a network is judged by: never those it was trained on.

    Raises:
        InputError: see `load_dataset`; or the data are a file without splits, and no other one is named.
    """
    if config.dataset.endswith(".npz") and config.test_dataset in (None, config.dataset):
        what = "has no test split, and all of it is for training"
        raise InputError(f"--dataset {config.dataset}", what, "name another file as test_dataset in --config")
    return load_dataset(config.test_dataset or config.dataset, data_dir, "test")


def _write(metrics: dict[str, Any], config: TrainConfig, out: Path) -> None:
    _whole(out / METRICS, json.dumps(metrics, indent=1) + "\n")
    _whole(out / CARD, card(metrics, config))


def _whole(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def card(metrics: dict[str, Any], config: TrainConfig) -> str:
    """The model card, in Markdown."""
    last = metrics["history"][-1] if metrics["history"] else None
    radii = "adaptive radii" if config.loss_options.get("adaptive_radii") else "a fixed radius"
    lines = [
        f"# {config.network} on {config.dataset}",
        "",
        f"Trained by `verifier train` {metrics['verifier']} with the loss {config.loss} at {radii}, to be robust "
        f"within epsilon = {config.epsilon:g} (L-infinity, pixels in [0, 1]).",
        "",
        f"- `{MODEL}`: takes pixels in [0, 1], returns {metrics['model']['classes']} logits; normalisation is part of "
        f"it, batch normalisation is folded into its layers. SHA-256 `{metrics['model']['sha256']}`.",
        f"- `config.yaml`: makes it again: `verifier train --config config.yaml --out DIR` (seed {config.seed}).",
        f"- `{METRICS}`: all figures; `{TRAINING_CURVES}`: the course of training.",
        "",
        f"{metrics['steps']} of {metrics['total_steps']} steps, batches of {config.batch_size}, "
        f"radius {config.final_epsilon:g} at the end of the ramp.",
        "",
    ]
    if last is not None:
        held = f"natural {last['natural']:.2%}, certified by IBP {last['certified']:.2%}"
        lines += [f"On the part of the training split that was held out: {held}.", ""]
    return "\n".join([*lines, *_test_lines(metrics, config)])


def _test_lines(metrics: dict[str, Any], config: TrainConfig) -> list[str]:
    if "test" not in metrics:
        return ["It was not evaluated on the test split (`--certify`).", ""]
    test = metrics["test"]
    rows = [("natural", test["natural"])]
    rows += [("under attack (PGD)", test["attacked"])] if "attacked" in test else []
    rows += [(f"certified by {method}", found) for method, found in test["certified"].items()]
    if "complete" in test:
        rows.append((f"complete, {test['complete']['timeout']:g} s an image", test["complete"]))
    lines = ["| test split | accuracy | images |", "| --- | --- | --- |"]
    lines += [f"| {name} | {found['accuracy']:.2%} | {found['images']} |" for name, found in rows]
    if "radius" in test:
        radius = test["radius"]
        lines += [
            "",
            f"Average certified radius (last radius proved by {radius['method']}, {radius['images']} images, "
            f"misclassified ones count as 0): {radius['mean']:.5f}, {radius['mean_share']:.1%} of the limit "
            f"{radius['limit']:g}; `{CERTIFIED_CURVE}` shows the certified accuracy at every radius.",
        ]
    check = f"verifier verify {MODEL} --dataset {config.test_dataset or config.dataset} --index 0:20"
    return [*lines, "", f"To check: `{check} --epsilon {config.epsilon:g}`.", ""]
