"""How a network is trained, as a YAML file and as flags: one record, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from verifier.errors import InputError
from verifier.specs.exact import parse_epsilon


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _radius(value: Any) -> Any:
    """Text like 8/255 as a number; what is not text is left to pydantic."""
    if not isinstance(value, str):
        return value
    try:
        return float(parse_epsilon(value))
    except InputError as error:
        raise ValueError(error.what) from error


class RateSchedule(_Record):
    """The learning rate over the steps: ``one-cycle``, or ``decays`` at the ends of given epochs."""

    kind: Literal["one-cycle", "decays"] = "decays"
    milestones: tuple[float, ...] = ()
    factor: float = Field(default=0.2, gt=0, le=1)


class Evaluation(_Record):
    """What ``--certify`` measures on the test split.

    Args:
        images: number of test images, from the first; the incomplete methods and the attack see all of them.
        methods: incomplete methods whose certified accuracy is reported.
        complete_images: number of images that complete verification sees; 0 leaves it out.
        timeout: seconds of complete verification for each of them.
        radius_images: number of images whose certified radius is bisected; 0 leaves it out.
        radius_method: method of the radius, and of the curve of certified accuracy that follows from the radii.
        radius_limit: where a radius is capped (the ACR's unit); None for twice epsilon.
        radius_steps: bisections.
        attack_steps, attack_restarts: of PGD; 0 restarts leave it out.
        batch_size: images in one batch of bounds.
    """

    images: int = Field(default=1000, ge=1)
    methods: tuple[str, ...] = ("ibp", "crown", "alpha-crown")
    complete_images: int = Field(default=20, ge=0)
    timeout: float = Field(default=10.0, gt=0)
    radius_images: int = Field(default=1000, ge=0)
    radius_method: str = "ibp"
    radius_limit: float | None = Field(default=None, gt=0)
    radius_steps: int = Field(default=10, ge=1, le=40)
    attack_steps: int = Field(default=40, ge=1)
    attack_restarts: int = Field(default=2, ge=0)
    batch_size: int = Field(default=200, ge=1)

    @field_validator("radius_limit", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        return _radius(value)


class TrainConfig(_Record):
    """Everything about a training run but where it runs and what it writes.

    Args:
        dataset: ``digits``, ``mnist``, ``cifar10``, or an .npz file (all of it is training data).
        test_dataset: an .npz file for the evaluation; None for the test split of `dataset`.
        network, network_options: see `verifier.training.networks`.
        loss, loss_options: see `verifier.training.losses`.
        epsilon: radius that is to be certified, in units of pixels in [0, 1].
        train_epsilon: radius at the end of the ramp; None for epsilon.
        epochs, batch_size: the last batch of an epoch is left out where it is not full.
        ramp: epochs at which the radius leaves zero, and at which it is reached.
        learning_rate, rate: of Adam, and how it changes.
        initialisation: ``ibp`` draws weights that keep intervals narrow (Shi et al. 2021), ``torch`` leaves them.
        clip_norm: of the gradient; None for no clipping.
        l1: weight of the sum of absolute weights of linear and convolutional layers.
        average: decay of the moving average of the weights that is certified and exported; None for none.
        augment: mirrored and cropped images.
        crop: pixels that a crop moves by, at most.
        validation: share of the training split that is held out.
        precision: of training; everything certified is computed in float32 and float64.
        seed: of all that is random.
    """

    dataset: str
    test_dataset: str | None = None
    network: str = "small-cnn"
    network_options: dict[str, Any] = {}
    loss: str = "ibp"
    loss_options: dict[str, Any] = {}
    epsilon: float = Field(gt=0)
    train_epsilon: float | None = Field(default=None, gt=0)
    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=256, ge=2)
    ramp: tuple[float, float] | None = None
    learning_rate: float = Field(default=3e-3, gt=0)
    rate: RateSchedule = RateSchedule(kind="one-cycle")
    initialisation: Literal["ibp", "torch"] = "ibp"
    clip_norm: float | None = Field(default=10.0, gt=0)
    l1: float = Field(default=0.0, ge=0)
    average: float | None = Field(default=None, gt=0, lt=1)
    augment: bool = False
    crop: int = Field(default=2, ge=0)
    validation: float = Field(default=0.1, gt=0, lt=1)
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    seed: int = Field(default=0, ge=0)
    evaluation: Evaluation = Evaluation()

    @field_validator("epsilon", "train_epsilon", mode="before")
    @classmethod
    def _as_number(cls, value: Any) -> Any:
        return _radius(value)

    @model_validator(mode="after")
    def _ordered(self) -> TrainConfig:
        begin, end = self.ramp_epochs
        if not 0 <= begin <= end <= self.epochs:
            raise ValueError(f"the ramp from {begin:g} to {end:g} does not lie, in this order, in {self.epochs} epochs")
        times = self.rate.milestones
        if list(times) != sorted(set(times)) or any(not 0 < time < self.epochs for time in times):
            listed = ", ".join(f"{time:g}" for time in times)
            raise ValueError(f"milestones {listed} do not ascend between 0 and {self.epochs} epochs")
        return self

    @property
    def ramp_epochs(self) -> tuple[float, float]:
        """Epochs at which the ramp begins and ends; the first half of training unless told otherwise."""
        return (0.0, self.epochs / 2) if self.ramp is None else self.ramp

    @property
    def final_epsilon(self) -> float:
        """The radius at the end of the ramp."""
        return self.epsilon if self.train_epsilon is None else self.train_epsilon


def read_config(path: Path | None, flags: Mapping[str, Any]) -> TrainConfig:
    """A configuration from a file and from flags, which win.

    Args:
        path: YAML; None for flags alone.
        flags: fields by name; those of ``loss_options`` and ``evaluation`` are merged one by one.

    Raises:
        InputError: the file cannot be read, or a field is unknown, missing or has a value that makes no sense.
    """
    fields = {} if path is None else _read(path)
    for name, value in flags.items():
        old = fields.get(name)
        fields[name] = {**old, **value} if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    try:
        return TrainConfig(**fields)
    except ValidationError as error:
        raise _readable(error, path, flags) from error


def write_config(config: TrainConfig, path: Path) -> None:
    """Write what `read_config` reads."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the path and its rights") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is not YAML ({error})", "write lines like 'epochs: 8'") from error
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise InputError(str(path), "is not a mapping of fields", "write lines like 'epochs: 8'")
    return fields


def _readable(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> InputError:
    """The first complaint as a sentence that names the flag or the file."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    name = str(first["loc"][0]) if first["loc"] else ""
    where = f"--{name.replace('_', '-')}" if name in flags or path is None and name else f"{path or 'configuration'}"
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return InputError(where, "is missing", "give it as a flag or in --config")
    if first["type"] == "extra_forbidden":
        return InputError(where, f"{place} is no field", "see docs/training.md for the fields")
    given = f" (given: {first['input']!r})" if place else ""
    return InputError(where, f"{place}: {said}{given}" if place else said, "correct the value")
