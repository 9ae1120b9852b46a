"""Training data that live on the device, their order, and their augmentation.

Order and augmentation are functions of seed and step alone, so a run that is resumed in the middle of an epoch sees
what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from verifier.errors import InputError
from verifier.specs.datasets import Dataset, load_dataset

#: what random numbers are drawn for; a stream of its own for each
SPLIT, ORDER, AUGMENT, LOSS, GLOBAL = range(5)


def generator(seed: int, stream: int, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers that depend on nothing but the seed, what they are for, and the numbers (epoch, step, rank)."""
    return torch.Generator(device).manual_seed(seed_of(seed, stream, *numbers))


def seed_of(seed: int, stream: int, *numbers: int) -> int:
    """The seed of such random numbers, of 63 bits."""
    state = np.random.SeedSequence((seed, stream, len(numbers), *numbers)).generate_state(1, np.uint64)[0]
    return int(state) >> 1


@dataclass(frozen=True, eq=False)
class Images:
    """Inputs x (N, *X) float32 in [0, 1] and classes y (N,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device | str) -> Images:
        return Images(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a network learns from.

    Args:
        train, validation: disjoint parts of the *training* split.
        classes: number of classes.
        mean, std: of each channel over `train`.
    """

    train: Images
    validation: Images
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(*X) of an input."""
        return tuple(self.train.x.shape[1:])

    def to(self, device: torch.device | str) -> TrainingData:
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))


def load_training_data(
    name: str, data_dir: str | Path | None = None, validation: float = 0.1, seed: int = 0
) -> TrainingData:
    """The training split of a data set, a part of it held out at random.

    Args:
        name, data_dir: as of `load_dataset`.
        validation: share that is held out.
        seed: of the choice.

    Raises:
        InputError: see `load_dataset`; or values outside [0, 1], or fewer than two classes.
    """
    data = load_dataset(name, data_dir, "train")
    _check(data)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    order = torch.randperm(len(y), generator=generator(seed, SPLIT))
    held = max(1, round(validation * len(y)))
    if held >= len(y):
        raise InputError(f"--dataset {name}", f"holds {len(y)} inputs", "give more, or a smaller validation share")
    train, rest = order[held:], order[:held]
    train, validating = Images(x[train], y[train]), Images(x[rest], y[rest])
    axes = [axis for axis in range(x.ndim) if axis != 1]
    std, mean = torch.std_mean(train.x.double(), dim=axes)
    std = torch.where(std > 0, std, 1.0)
    return TrainingData(train, validating, int(data.y.max()) + 1, tuple(mean.tolist()), tuple(std.tolist()))


def _check(data: Dataset) -> None:
    where = f"--dataset {data.name}"
    low, high = float(data.x.min()), float(data.x.max())
    if low < 0 or high > 1:
        raise InputError(
            where, f"its values go from {low:g} to {high:g}", "training takes values in [0, 1]: scale them"
        )
    if data.y.min() < 0 or len(np.unique(data.y)) < 2:
        raise InputError(where, "holds fewer than two classes, or a negative one", "number the classes from 0")


class Batches:
    """The batches of all epochs in one row, each as (step, indices (b,)); begins anew where `position` says.

    In every epoch each input is drawn at most once; what does not fill a batch waits for another epoch. Of several
    processes each gets its share of every batch.

    Args:
        count: number of inputs.
        size: of a batch, over all processes.
        epochs: how many.
        seed: of the order.
    """

    def __init__(self, count: int, size: int, epochs: int, seed: int):
        self.count, self.size, self.seed = count, min(size, count), seed
        self.per_epoch = count // self.size
        self.steps = epochs * self.per_epoch
        self.position, self.rank, self.world = 0, 0, 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        order, drawn = torch.empty(0), -1
        for step in range(self.position, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != drawn:
                order = torch.randperm(self.count, generator=generator(self.seed, ORDER, epoch))
                drawn = epoch
            yield step, order[place * self.size : (place + 1) * self.size][self.rank :: self.world]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def flip_and_crop(x: Tensor, padding: int, random: torch.Generator) -> Tensor:
    """Each image (B, C, H, W) mirrored with probability one half, then moved by up to `padding` pixels each way; what
    comes in repeats the edge."""
    count, _, height, width = x.shape
    mirrored = torch.rand(count, 1, 1, 1, generator=random, device=x.device) < 0.5
    x = torch.where(mirrored, x.flip(3), x)
    if padding == 0:
        return x
    wide = pad(x, (padding,) * 4, mode="replicate")
    moved = torch.randint(2 * padding + 1, (2, count, 1), generator=random, device=x.device)
    rows = moved[0] + torch.arange(height, device=x.device)  # (B, H)
    columns = moved[1] + torch.arange(width, device=x.device)
    image = torch.arange(count, device=x.device)[:, None, None]
    return wide.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
