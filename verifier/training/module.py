"""One training run as a `LightningModule`: a step, what is remembered between steps, and the end of an epoch.

For Lightning the whole run is one pass over `Batches`; epochs are counted here. All that a checkpoint has to hold is
then the weights, the optimiser, the radii, the history and the step: schedules and random numbers follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from verifier.errors import InputError
from verifier.training.bounded import BoundedModule
from verifier.training.config import TrainConfig
from verifier.training.data import (
    AUGMENT,
    GLOBAL,
    LOSS,
    Batches,
    Images,
    TrainingData,
    flip_and_crop,
    generator,
    seed_of,
)
from verifier.training.losses import TrainingLoss
from verifier.training.precision import LowPrecision, products
from verifier.training.schedules import Schedule, decays, one_cycle, smoothed_ramp

#: steps between two looks at the loss on a GPU, which has to be waited for
_LOOK_EVERY = 50
#: inputs that are validated at a time
_VALIDATION_BATCH = 500
#: epsilon that radii are divided by where it is 0, and they are 0 as well
_SMALLEST = 1e-30

Epoch = dict[str, float]


class CertifiedTraining(LightningModule):
    """Trains a network by a certified loss.

    Args:
        network: (B, *X) in [0, 1] -> logits.
        loss: from `verifier.training.losses.training_loss`.
        config: schedules and regularisation.
        data: on the CPU; moved to the device once.
        checkpoint: called without arguments when it is time to save. That has to be between two steps: what Lightning
            saves after its loop has ended could not be gone on from.
        checkpoint_every: steps between two checkpoints; one is written after every epoch and at the end anyway.
        limit: the step at which the run stops; None for the end of the last epoch.
    """

    radii: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: TrainingLoss,
        config: TrainConfig,
        data: TrainingData,
        checkpoint: Callable[[], None],
        checkpoint_every: int | None = None,
        limit: int | None = None,
    ):
        super().__init__()
        self.network, self.loss, self.config, self.images = network, loss, config, data
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self.batches = Batches(len(data.train), config.batch_size, config.epochs, config.seed)
        self.limit = len(self.batches) if limit is None else min(limit, len(self.batches))
        self.average = None
        if config.average is not None:
            self.average = AveragedModel(
                network, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True
            ).requires_grad_(False)
        # what was certified for each sample when it was last seen, as a share of epsilon, which may have grown since
        # then; part of the checkpoint
        self.register_buffer("radii", torch.zeros(len(data.train)))
        self.epsilon, self.rate = schedules(config, self.batches.per_epoch)
        self.history: list[Epoch] = []
        self.sums = torch.zeros(5)  # of this epoch: samples, correct, certified, radii, losses

    @property
    def final(self) -> nn.Module:
        """The network that is certified and exported."""
        return self.network if self.average is None else self.average.module

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.rate(0), fused=True)

    def train_dataloader(self) -> Batches:
        self.batches.rank, self.batches.world = self.global_rank, self.trainer.world_size
        return self.batches

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        step, indices = batch
        return step, indices.to(device, non_blocking=True)

    def on_train_start(self) -> None:
        self.images, self.sums = self.images.to(self.device), self.sums.to(self.device)
        example = self.images.train.x[:1]
        with products(tf32=False):
            self.bounded = (LowPrecision if self.config.precision == "bf16" else BoundedModule)(self.network, example)
            self.judged = BoundedModule(self.final, example)
        self.network.train()
        self.began = monotonic()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate(batch[0])

    def training_step(self, batch: tuple[int, Tensor], batch_idx: int) -> Tensor:
        step, indices = batch
        rank, config = self.global_rank, self.config
        torch.manual_seed(seed_of(config.seed, GLOBAL, step, rank))  # of modules that draw on their own, like dropout
        x, y = self.images.train.x[indices], self.images.train.y[indices]
        if config.augment:
            x = flip_and_crop(x, config.crop, generator(config.seed, AUGMENT, step, rank, device=self.device))
        epsilon = self.epsilon(step)
        previous = self.radii[indices] * epsilon if step >= self.batches.per_epoch else None
        random = generator(config.seed, LOSS, step, rank, device=self.device)
        terms = self.loss(self.bounded, x, y, epsilon, config.final_epsilon, previous, random)
        loss = terms.loss if config.l1 == 0 else terms.loss + config.l1 * _absolute(self.network)
        self._remember(indices, terms.radius.detach() / max(epsilon, _SMALLEST))
        seen = (torch.ones_like(terms.radius), terms.correct, terms.certified, terms.radius)
        sums = [one.detach().float().sum() for one in seen]
        self.sums += torch.stack([*sums, loss.detach().float() * len(indices)])
        if self.device.type == "cpu" or step % _LOOK_EVERY == 0:
            self._require_finite(loss, step)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update_parameters(self.network)
        done = batch[0] + 1
        self.batches.position = done
        if done % self.batches.per_epoch == 0:
            self._finish_epoch(done)
        elif done != self.limit and (self.checkpoint_every is None or done % self.checkpoint_every):
            return
        self._require_finite(sum(p.sum() for p in self.network.parameters()), done)
        self.checkpoint()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["training"] = {
            "config": self.config.model_dump(mode="json"),
            "position": self.batches.position,
            "history": self.history,
            "sums": self.sums.cpu(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["training"]
        self.batches.position, self.history, self.sums = kept["position"], list(kept["history"]), kept["sums"]

    def _remember(self, indices: Tensor, radius: Tensor) -> None:
        """Keep the radii, those of other processes as well."""
        if self.trainer.world_size > 1:
            indices, radius = (self.all_gather(one).reshape(-1) for one in (indices, radius))  # type: ignore[union-attr]
        self.radii[indices] = radius.to(self.radii.dtype)

    def _require_finite(self, loss: Any, step: int) -> None:
        if not bool(torch.isfinite(loss)):
            mend = "lower --learning-rate or --epsilon; the last good checkpoint is kept, --resume goes on from it"
            raise InputError("training", f"the loss or a weight is no finite number at step {step}", mend)

    def _finish_epoch(self, done: int) -> None:
        self.final.eval()
        natural, certified = accuracies(self.judged, self.images.validation, self.config.epsilon)
        self.network.train()
        sums = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        count, correct, proved, radius, loss = sums.tolist()
        epoch = {
            "epoch": done // self.batches.per_epoch,
            "step": done,
            "loss": loss / count,
            "epsilon": self.epsilon(done - 1),
            "learning_rate": self.rate(done - 1),
            "train_natural": correct / count,
            "train_certified": proved / count,
            "train_radius": radius / count,
            "natural": natural,
            "certified": certified,
            "seconds": monotonic() - self.began,
        }
        self.history.append(epoch)
        for logger in self.trainer.loggers:
            logger.log_metrics({name: value for name, value in epoch.items() if name != "step"}, step=done)
        self.sums.zero_()
        self.began = monotonic()


def schedules(config: TrainConfig, per_epoch: int) -> tuple[Schedule, Schedule]:
    """Radius and learning rate of every step."""
    begin, end = (round(epoch * per_epoch) for epoch in config.ramp_epochs)
    radius = smoothed_ramp(config.final_epsilon, begin, end - begin)
    if config.rate.kind == "one-cycle":
        return radius, one_cycle(config.learning_rate, config.epochs * per_epoch)
    milestones = [round(epoch * per_epoch) for epoch in config.rate.milestones]
    return radius, decays(config.learning_rate, milestones, config.rate.factor)


def accuracies(network: BoundedModule, images: Images, epsilon: float) -> tuple[float, float]:
    """Shares of images that are classified correctly, and that intervals certify at a radius, in float32."""
    natural = certified = 0
    with torch.no_grad(), products(tf32=False):
        for x, y in zip(images.x.split(_VALIDATION_BATCH), images.y.split(_VALIDATION_BATCH), strict=True):
            natural += int((network.clean(x).argmax(1) == y).sum())
            certified += int((network.ibp_margins(x, y, epsilon) > 0).all(1).sum())
    return natural / len(images), certified / len(images)


def _absolute(network: nn.Module) -> Tensor:
    """Sum of the absolute weights of linear and convolutional layers."""
    weights = [p for p in network.parameters() if p.dim() > 1]
    return torch.stack([weight.abs().sum() for weight in weights]).sum()
