"""A whole training run: data, network, Lightning's trainer, and the folder of results."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch import nn

from verifier.errors import InputError, out_of_memory
from verifier.operators import find_device
from verifier.training.checkpoints import LAST, read_checkpoint
from verifier.training.config import TrainConfig, write_config
from verifier.training.data import TrainingData, load_training_data
from verifier.training.losses import LossOptions, training_loss
from verifier.training.module import CertifiedTraining, Epoch
from verifier.training.networks import build_network
from verifier.training.precision import products
from verifier.training.progress import ProgressBar
from verifier.training.regularisers import initialise

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Machine:
    """Where a run takes place.

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:N]``.
        devices: GPUs (or, on the CPU, processes) that share every batch.
    """

    device: str = "auto"
    devices: int = 1


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of a run.

    Args:
        network: to be certified: the averaged one where the configuration wants averages.
        data: what it was trained on.
        history: a record for every epoch.
        steps: how many were taken, of `total`.
        chief: whether this process is the one, of several that trained together, that goes on with the results.
    """

    network: nn.Module
    data: TrainingData
    history: list[Epoch]
    steps: int
    total: int
    chief: bool = True


def train(
    config: TrainConfig,
    out: Path,
    *,
    data_dir: Path | None = None,
    machine: Machine = Machine(),
    resume: bool = False,
    max_steps: int | None = None,
    checkpoint_every: int | None = None,
    console: Console | None = None,
) -> Trained:
    """Train a network; checkpoints, the configuration and TensorBoard's files go to a folder.

    Args:
        config: what to train, on what, and how.
        out: the folder; made where it is absent.
        data_dir: where the files of a data set are.
        machine: where to compute.
        resume: go on from the last checkpoint of `out`; the weights at the end are those of a run without a break
            (on the CPU bit by bit).
        max_steps: stop after so many steps in all, with a checkpoint; schedules stay as they are.
        checkpoint_every: steps between checkpoints; None for one after every epoch.
        console: where progress is shown; None for nowhere.

    Raises:
        InputError: the configuration names what is not there, the folder holds another run, the loss ceased to be
            a finite number, or memory ran out.
    """
    device = find_device(machine.device)
    _check(config, machine)
    loss = training_loss(config.loss, loss_options(config))
    checkpoint = out / LAST
    kept = read_checkpoint(checkpoint, config) if resume else None
    if not resume and checkpoint.exists():
        raise InputError(f"--out {out}", "holds the checkpoint of another run", "add --resume, or name another folder")
    data = load_training_data(config.dataset, data_dir, config.validation, config.seed)
    network = new_network(config, data)
    _prepare(out, config)
    run = CertifiedTraining(
        network, loss, config, data, lambda: _save(trainer, checkpoint), checkpoint_every, max_steps
    )
    if kept is not None and kept["training"]["position"] >= run.limit:
        run.load_state_dict(kept["state_dict"])
        run.on_load_checkpoint(kept)
        return _result(run)
    with _quiet(), products(config.precision != "float32"), torch.random.fork_rng():
        trainer = _trainer(config, out, device, machine, run.limit, console)
        try:
            trainer.fit(run, ckpt_path=str(checkpoint) if resume else None, weights_only=True)
        except SystemExit as error:  # how Lightning ends when it is interrupted
            raise KeyboardInterrupt from error
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            where, mend = f"--batch-size {config.batch_size}", f"try --batch-size {max(2, config.batch_size // 2)}"
            raise InputError(where, f"does not fit the memory of {device}", mend) from error
    return replace(_result(run), chief=trainer.is_global_zero)


def loss_options(config: TrainConfig) -> LossOptions:
    """The loss's options.

    Raises:
        InputError: one is unknown or has a value that makes no sense.
    """
    known = {field.name for field in fields(LossOptions)}
    for name, value in config.loss_options.items():
        if name not in known:
            raise InputError(f"loss option {name}", "is not known", f"choose of {', '.join(sorted(known))}")
        like = getattr(LossOptions, name)
        if isinstance(value, bool) != isinstance(like, bool) or isinstance(value, str) != isinstance(like, str):
            raise InputError(f"loss option {name}", f"{value!r} makes no sense", f"write it like {like!r}")
    return LossOptions(**config.loss_options)


def new_network(config: TrainConfig, data: TrainingData) -> nn.Sequential:
    """The network of a configuration, with the weights that training starts from."""
    network = build_network(
        config.network, data.shape, data.classes, data.mean, data.std, config.network_options, config.seed
    )
    if config.initialisation == "ibp":
        initialise(network, torch.Generator().manual_seed(config.seed))
    return network


def _check(config: TrainConfig, machine: Machine) -> None:
    if config.batch_size % machine.devices:
        what = f"is not a multiple of {machine.devices} devices, which share it"
        raise InputError(f"--batch-size {config.batch_size}", what, "choose a multiple")


def _prepare(out: Path, config: TrainConfig) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_config(config, out / CONFIG)
    except OSError as error:
        raise InputError(f"--out {out}", f"cannot be written ({error.strerror})", "name a folder of yours") from error


def _trainer(
    config: TrainConfig, out: Path, device: torch.device, machine: Machine, limit: int, console: Console | None
) -> Trainer:
    """Lightning's trainer, which takes the whole run for one epoch and writes nothing on its own."""
    cuda = device.type == "cuda"
    devices: Any = machine.devices
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # as Lightning numbers the processes that it starts
    if cuda and device.index is not None and machine.devices == 1:
        devices = [device.index]
    return Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=devices,
        strategy="ddp" if machine.devices > 1 else "auto",
        max_epochs=1,
        max_steps=limit,
        gradient_clip_val=config.clip_norm,
        logger=TensorBoardLogger(out, name=None, version="tensorboard"),
        callbacks=[ProgressBar(console)] if console is not None and first else [],
        default_root_dir=out,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=cuda,
    )


def _save(trainer: Trainer, path: Path) -> None:
    """Write the checkpoint so that there is a whole one at any time."""
    draft = path.with_suffix(".draft")
    trainer.save_checkpoint(draft)
    if trainer.is_global_zero:
        os.replace(draft, path)


def _result(run: CertifiedTraining) -> Trained:
    return Trained(run.final.eval().cpu(), run.images.to("cpu"), run.history, run.batches.position, len(run.batches))


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's remarks are for those who write loops; its errors stay errors."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
