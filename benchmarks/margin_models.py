"""What the way of training does to margins and logits: networks trained here, alike but for their loss.

    python -m benchmarks.margin_models --out DIR [--losses standard,pgd,trades,sovr,ibp] [--seeds 1] [--epochs 4]
        [--images 100] [--seconds 2] [--dataset mnist] [--epsilon 0.1] [--width 8]

Every network is trained, exported and then judged through its file, on the first images of the test split: by the
ensemble of attacks, by certified brackets of its margins, and by its logits on clean and on attacked images. A finished
one is a line of ``DIR/rows.jsonl``; a command that was stopped goes on where it stopped, in the middle of a training if
need be. ``brackets.json`` in a network's folder is for ``verifier margins report --brackets``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

from verifier.process import tune

tune()

import numpy as np  # noqa: E402  (torch has to come after the settings)
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.margin_tables import Row, show  # noqa: E402
from verifier.analysis.brackets import Metric  # noqa: E402
from verifier.analysis.margins.logits import LogitStatistics, logit_statistics, peaks  # noqa: E402
from verifier.analysis.margins.plots import logit_figure  # noqa: E402
from verifier.analysis.margins.report import report  # noqa: E402
from verifier.analysis.margins.samples import Samples  # noqa: E402
from verifier.analysis.margins.scores import ScoreOptions, score  # noqa: E402
from verifier.analysis.measured import Measured, document  # noqa: E402
from verifier.attacks.ensemble import Budget  # noqa: E402
from verifier.cli.radius_command import measure  # noqa: E402
from verifier.cli.request import chosen, query_flags  # noqa: E402
from verifier.cli.results import versions  # noqa: E402
from verifier.cli.screens import Status  # noqa: E402
from verifier.falsify import AttackOptions, attack  # noqa: E402
from verifier.graph import load  # noqa: E402
from verifier.graph.ir import Graph  # noqa: E402
from verifier.operators import evaluate, place  # noqa: E402
from verifier.specs.robustness import robustness  # noqa: E402
from verifier.training.attack import ascend_in_box  # noqa: E402
from verifier.training.bounded import ball  # noqa: E402
from verifier.training.checkpoints import LAST  # noqa: E402
from verifier.training.config import TrainConfig  # noqa: E402
from verifier.training.evaluate import Subject, certified  # noqa: E402
from verifier.training.loop import train  # noqa: E402
from verifier.training.losses import LOSSES  # noqa: E402
from verifier.training.results import MODEL, load_test_data, save_results  # noqa: E402
from verifier.verdict import Falsified  # noqa: E402

SCORE = "logit-margin"
#: losses whose networks begin with weights that keep intervals narrow
BY_BOUNDS = ("ibp", "crown-ibp", "sabr", "mtl-ibp", "exp-ibp", "cc-ibp", "certified-sovr")
#: of the adversarial losses, fewer than their default: five steps go as far as eight of half the size
ATTACK = {"attack_steps": 5, "attack_step_size": 0.5}
#: test images whose logits are looked at, and steps of the attack on them
LOGIT_IMAGES, LOGIT_STEPS = 2000, 20
BATCH = 200
#: bounds of the brackets; intervals cost next to nothing, and are what some of the networks are trained for
BRACKETS = ("ibp", "crown", "alpha-crown")


@dataclass(frozen=True)
class Setting:
    """One network and how it is judged.

    Args:
        width: channels of the first layer; the second has twice, the hidden one eight times as many.
        images: from the first of the test split, that are attacked and whose margins are bracketed.
        seconds: for each bracket.
        steps, queries: of the ensemble.
    """

    dataset: str
    loss: str
    seed: int
    epochs: int
    epsilon: float
    width: int
    images: int
    seconds: float
    steps: int
    queries: int

    @property
    def folder(self) -> str:
        return f"{self.dataset}-{self.loss}-{self.epsilon:g}-{self.width}-{self.epochs}-{self.seed}"

    @property
    def config(self) -> TrainConfig:
        milestones = [0.75 * self.epochs, 0.875 * self.epochs]
        fields: dict[str, Any] = {
            "dataset": self.dataset,
            "network": "small-cnn",
            "network_options": {"width": self.width, "hidden": 8 * self.width},
            "loss": self.loss,
            "loss_options": ATTACK,
            "epsilon": self.epsilon,
            "epochs": self.epochs,
            "seed": self.seed,
            "initialisation": "ibp" if self.loss in BY_BOUNDS else "torch",
            "rate": {"kind": "decays", "milestones": milestones, "factor": 0.2},
            "validation": 0.05,
        }
        return TrainConfig(**fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--losses", default="standard,pgd,trades,sovr,ibp")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=8, help="channels of the first layer")
    parser.add_argument("--images", type=int, default=100, help="that are attacked, and whose margins are bracketed")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each bracket")
    parser.add_argument("--steps", type=int, default=100, help="of every gradient attack of the ensemble")
    parser.add_argument("--queries", type=int, default=1000, help="of Square")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    losses = str(options.losses).split(",")
    if unknown := sorted(set(losses) - set(LOSSES)):
        parser.error(f"--losses: unknown {', '.join(unknown)}; known are {', '.join(LOSSES)}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    shared = {
        name: getattr(options, name)
        for name in ("dataset", "epochs", "epsilon", "width", "images", "seconds", "steps", "queries")
    }
    settings = [Setting(loss=loss, seed=seed, **shared) for seed, loss in product(range(options.seeds), losses)]
    for setting in settings:
        if asdict(setting) not in [row["setting"] for row in read(options.out)]:
            row = made(setting, options.out / setting.folder, options.data_dir)
            with (options.out / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    wanted = [asdict(setting) for setting in settings]
    show([row for row in read(options.out) if row["setting"] in wanted])
    draw([setting for setting in settings if setting.seed == 0], options.out, options.data_dir)


def read(out: Path) -> list[Row]:
    """The networks that are done."""
    path = out / "rows.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def made(setting: Setting, folder: Path, data_dir: Path | None) -> Row:
    """Train a network (or go on), export and judge it."""
    begun = process_time()
    trained = train(setting.config, folder, data_dir=data_dir, resume=(folder / LAST).is_file())
    save_results(trained, setting.config, folder)
    seconds = process_time() - begun
    return {"setting": asdict(setting), "seconds": seconds, **judged(setting, folder, data_dir)}


def judged(setting: Setting, folder: Path, data_dir: Path | None) -> Row:
    """Accuracies, margins and logits of a network's file."""
    graph, epsilon = load(folder / MODEL), setting.epsilon
    everything = Subject.of(graph, load_test_data(setting.config, data_dir), BATCH)
    subject = everything.first(setting.images)
    broken = by_ensemble(subject, setting)
    brackets = bracketed(setting, graph, folder, data_dir)
    samples = Samples.of([one.bracket for one in brackets])
    proved = subject.correct & samples.robust(epsilon)
    for method in ("crown", "alpha-crown"):
        rest = np.flatnonzero(subject.correct & ~broken & ~proved)
        proved[rest] = certified(subject, rest, np.full(len(rest), epsilon), method, BATCH)
    scores = score(SCORE, graph, list(subject.x), ScoreOptions(Metric(), epsilon, device="cpu"))
    found = report(SCORE, scores, samples, epsilon)
    clean, moved = statistics(setting, everything)
    detected = found.detection
    assert detected is not None
    return {
        "natural": float(everything.correct.mean()),
        "robust": float((~broken).mean()),
        "certified": float(proved.mean()),
        "contradictions": int((proved & broken).sum()),
        "margin": [float(np.median(ends)) for ends in (samples.lower, samples.upper)],
        "tau": [found.tau.low, found.tau.high],
        "tau_attacked": found.tau.attacked,
        "brittle": [detected.brittle, detected.brittle + detected.unknown],
        "auroc": None if detected.auroc is None else [detected.auroc.low, detected.auroc.high],
        "fpr95": None if detected.fpr95 is None else [detected.fpr95.low, detected.fpr95.high],
        "logits": {"clean": logits_of(clean), "attacked": logits_of(moved)},
    }


def by_ensemble(subject: Subject, setting: Setting) -> np.ndarray:
    """Which images (n,) are misclassified, or were by a point of their ball, in onnxruntime."""
    specs = [robustness(x, int(y), setting.epsilon) for x, y in zip(subject.x, subject.y, strict=True)]
    budget = Budget(setting.steps, queries=setting.queries)
    options = AttackOptions("ensemble", "auto", budget, device="cpu", seed=setting.seed)
    verdicts = attack(subject.graph, specs, options, starts=list(subject.x))
    return np.array([isinstance(verdict, Falsified) for verdict in verdicts])


def bracketed(setting: Setting, graph: Graph, folder: Path, data_dir: Path | None) -> list[Measured]:
    """What `verifier radius` answers, also as its file."""
    inputs = chosen(setting.dataset, query_flags(f"0:{setting.images}", None, None, None, None, None, False, data_dir))
    how = {"methods": BRACKETS, "timeout": setting.seconds, "device": "cpu", "seed": setting.seed}
    found = [one for part in measure(graph, folder / MODEL, inputs, how, None, Status(False)) for one in part]
    (folder / "brackets.json").write_text(document(found, versions()), encoding="utf-8")
    return found


def statistics(setting: Setting, subject: Subject) -> tuple[LogitStatistics, LogitStatistics]:
    """Logits on test images, and on points that PGD by cross entropy finds in their balls."""
    subject = subject.first(LOGIT_IMAGES)
    graph, random = place(subject.graph, torch.float32), torch.Generator().manual_seed(setting.seed)
    moved = []
    for start in range(0, len(subject.y), BATCH):
        x, y = (torch.from_numpy(array[start : start + BATCH]) for array in (subject.x, subject.y))
        box = ball(x, setting.epsilon)
        moved.append(ascend_in_box(lambda x, y=y: loss(graph, x, y), box, LOGIT_STEPS, 0.25, random).numpy())
    clean, attacked = (
        logit_statistics(setting.loss, subject.graph, list(x), subject.y.tolist(), ScoreOptions(device="cpu"))
        for x in (subject.x, np.concatenate(moved))
    )
    return clean, attacked


def loss(graph: Graph, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(evaluate(graph, x).flatten(1), y, reduction="none")


def logits_of(found: LogitStatistics) -> dict[str, Any]:
    return {**found.means(), "LM peaks": peaks(found.loss)}


def draw(settings: list[Setting], out: Path, data_dir: Path | None) -> None:
    """Histograms of the logits of one network for each loss: ``clean.png`` and ``attacked.png``."""
    test = load_test_data(settings[0].config, data_dir)
    pairs = [statistics(one, Subject.of(load(out / one.folder / MODEL), test, BATCH)) for one in settings]
    for which, name in enumerate(("clean", "attacked")):
        found = [pair[which] for pair in pairs]
        title = f"{len(found[0].labels)} {name} test images of {settings[0].dataset}"
        logit_figure(found, title).savefig(out / f"{name}.png")


if __name__ == "__main__":
    main()
