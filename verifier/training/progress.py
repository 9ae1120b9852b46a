"""What a training run shows on the terminal: a bar, and a line for every epoch."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from verifier.training.module import CertifiedTraining, Epoch


class ProgressBar(Callback):
    """Steps with the accuracies and the mean radius of this epoch so far, on standard error.

    Args:
        console: where to; on what is no terminal there are only the lines.
    """

    def __init__(self, console: Console):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.console, self.told, self.task = console, 0, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CertifiedTraining)
        self.told = len(pl_module.history)
        self.progress.start()
        batches = pl_module.batches
        self.task = self.progress.add_task("training", total=len(batches), completed=batches.position)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, CertifiedTraining) and self.task is not None
        for epoch in pl_module.history[self.told :]:
            self.console.print(describe(epoch), highlight=False, soft_wrap=True)
        self.told = len(pl_module.history)
        self.progress.update(self.task, completed=batch[0])
        if self.progress.disable or batch_idx % 20:
            return
        count, correct, certified, radius, _ = pl_module.sums.tolist()
        if count:
            said = f"natural {correct / count:.1%}, certified {certified / count:.1%}, radius {radius / count:.4f}"
            self.progress.update(self.task, description=said)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, CertifiedTraining)
        self.progress.stop()
        for epoch in pl_module.history[self.told :]:
            self.console.print(describe(epoch), highlight=False, soft_wrap=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.progress.stop()


def describe(epoch: Epoch) -> str:
    """One line about an epoch."""
    return (
        f"epoch {epoch['epoch']:.0f}: loss {epoch['loss']:.3f}, epsilon {epoch['epsilon']:.4g}, "
        f"mean radius {epoch['train_radius']:.4f}, validation natural {epoch['natural']:.2%}, "
        f"certified {epoch['certified']:.2%}, {epoch['seconds']:.1f} s"
    )
