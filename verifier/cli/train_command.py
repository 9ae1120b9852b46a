"""The command `train`."""

from __future__ import annotations

import json as encoder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verifier.cli import options
from verifier.cli.checks import check_files
from verifier.cli.files import STDOUT, write_whole
from verifier.errors import InputError
from verifier.process import use_threads

if TYPE_CHECKING:
    from rich.console import Console

    from verifier.training.config import TrainConfig

EPILOG = """
\b
Examples:
  verifier train --dataset digits --network mlp --epsilon 0.02 --out out/digits --certify
  verifier train --config benchmarks/training/mnist-adaptive-0.1.yaml --out out/mnist
  verifier train --out out/mnist --resume --certify

\b
Exit status: 0 the network was trained, 2 bad usage or input, 70 an internal
error.
"""

#: packages of the extra `train`
_EXTRA = ("lightning", "tensorboard", "pydantic", "yaml")

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of checkpoint, model.onnx, metrics and curves.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="YAML; flags win over it.")]
NetworkName = Annotated[
    str | None, typer.Option(metavar="NAME", help="small-cnn, cnn7, mlp, residual, or package.module:Name.")
]
LossName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="ibp, crown-ibp, sabr, mtl-ibp, exp-ibp, cc-ibp, certified-sovr, pgd, trades, sovr, tsovr or standard; "
        "ibp if not given.",
    ),
]
TrainEpsilon = Annotated[
    str | None, typer.Option(metavar="RADIUS", help="Radius at the end of the ramp, where it is not --epsilon.")
]
Adaptive = Annotated[
    bool | None, typer.Option("--adaptive-radii/--fixed-radius", help="Bound each sample at its own certified radius.")
]
Kappa = Annotated[float | None, typer.Option(metavar="SHARE", help="Weight of the natural loss, 0 to 1.")]
SovrShare = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Of each batch, that sovr switches to one-versus-the-rest.")
]
SovrWeight = Annotated[float | None, typer.Option(metavar="WEIGHT", help="Of that loss, where sovr switches to it.")]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="Samples of a step, over all devices.")]
LearningRate = Annotated[float | None, typer.Option(metavar="RATE", help="The largest that the schedule reaches.")]
MaxSteps = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Stop after so many steps, with a checkpoint; schedules stay.")
]
CheckpointEvery = Annotated[
    int | None, typer.Option(metavar="STEPS", min=1, help="Also write a checkpoint between the ends of epochs.")
]
Precision = Annotated[str | None, typer.Option(metavar="float32|tf32|bf16", help="Of training, never of proofs.")]
Devices = Annotated[int, typer.Option(metavar="N", min=1, help="GPUs that share every batch.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
Certify = Annotated[bool, typer.Option("--certify", help="Evaluate the exported network on the test split.")]
Seed = Annotated[int | None, typer.Option(metavar="N", min=0, max=options.LARGEST_SEED, help="Of everything random.")]


def train(
    out: Out,
    config: Config = None,
    dataset: options.Dataset = None,
    network: NetworkName = None,
    loss: LossName = None,
    epsilon: options.Epsilon = None,
    train_epsilon: TrainEpsilon = None,
    adaptive_radii: Adaptive = None,
    kappa: Kappa = None,
    sovr_share: SovrShare = None,
    sovr_weight: SovrWeight = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    precision: Precision = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = False,
    certify: Certify = False,
    data_dir: options.DataDir = None,
    devices: Devices = 1,
    threads: options.Threads = None,
    json: options.Json = None,
    seed: Seed = None,
    device: options.Device = "auto",
    quiet: options.QuietScreen = False,
    debug: options.Debug = False,
) -> int:
    """Train a network that is to be certified, and export it as ONNX."""
    check_files(json=json)
    use_threads(threads)
    fields = {
        "dataset": dataset,
        "network": network,
        "loss": loss,
        "epsilon": epsilon,
        "train_epsilon": train_epsilon,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    own = {
        "kappa": kappa,
        "adaptive_radii": adaptive_radii,
        "sovr_share": sovr_share,
        "sovr_weight": sovr_weight,
    }
    if own := {name: value for name, value in own.items() if value is not None}:
        given["loss_options"] = own
    where = {"data_dir": data_dir, "device": device, "devices": devices}
    how = {"resume": resume, "max_steps": max_steps, "checkpoint_every": checkpoint_every}
    settings = _config(config, given, out if resume else None)
    metrics = _run(settings, out, certify, where, how, quiet or json == STDOUT)
    if json is not None and metrics is not None:
        write_whole(json, encoder.dumps({"results": [metrics]}) + "\n", "--json")
    return 0


def _config(path: Path | None, given: dict[str, Any], resumed: Path | None) -> TrainConfig:
    """The configuration: of the file, or of the run that goes on, changed by the flags.

    Raises:
        InputError: the extra is not installed, or a field makes no sense.
    """
    try:
        from verifier.training.config import read_config
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if path is None and resumed is not None and (resumed / "config.yaml").is_file():
        path = resumed / "config.yaml"
    return read_config(path, given)


def _run(
    config: TrainConfig, out: Path, certify: bool, where: dict[str, Any], how: dict[str, Any], silent: bool
) -> dict[str, Any] | None:
    """Train, export, and evaluate where that is wanted; the metrics (None in a process that only helped to train)."""
    from rich.console import Console

    try:
        from verifier.training.loop import Machine, train
        from verifier.training.results import MODEL, certify_results, load_test_data, save_results
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from verifier.graph import load
    from verifier.training.evaluate import check_evaluation

    test = None
    if certify:  # what is wrong with it is said before the training
        check_evaluation(config.evaluation)
        test = load_test_data(config, where["data_dir"])
    console = None if silent else Console(stderr=True)
    machine = Machine(where["device"], where["devices"])
    trained = train(config, out, data_dir=where["data_dir"], machine=machine, console=console, **how)
    if not trained.chief:
        return None
    metrics = save_results(trained, config, out)
    if test is not None:
        said = (lambda what: None) if console is None else (lambda what: console.print(f"test split: {what}"))
        metrics = certify_results(metrics, load(out / MODEL), test, config, out, where["device"], said)
    if not silent:
        _show(metrics, out, Console())
    return metrics


def _show(metrics: dict[str, Any], out: Path, console: Console) -> None:
    """The last lines: what was reached, and where it is."""
    rows = []
    if metrics["history"]:
        last = metrics["history"][-1]
        rows.append(f"held out: natural {last['natural']:.2%}, certified by ibp {last['certified']:.2%}")
    if "test" in metrics:
        test = metrics["test"]
        parts = [f"{name} {test[name]['accuracy']:.2%}" for name in ("natural", "attacked") if name in test]
        parts += [f"{method} {found['accuracy']:.2%}" for method, found in test["certified"].items()]
        whole = test.get("complete")
        parts += [f"complete {whole['accuracy']:.2%} of the first {whole['images']}"] if whole else []
        parts += [f"mean radius {test['radius']['mean']:.4f}"] if "radius" in test else []
        rows.append(f"test: {', '.join(parts)}")
    rows.append(f"{metrics['steps']} of {metrics['total_steps']} steps; results in {out}")
    for row in rows:
        console.print(row, highlight=False, soft_wrap=True)


def _missing(error: ModuleNotFoundError) -> Exception:
    """A sentence about a package of the extra; any other error as it is."""
    name = (error.name or "").split(".")[0]
    if name not in _EXTRA:
        return error
    return InputError("verifier train", f"needs {name}, which is not installed", "pip install 'verifier[train]'")
