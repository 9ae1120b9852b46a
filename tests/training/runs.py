"""Tiny runs on digits."""

from __future__ import annotations

from typing import Any

from verifier.training.config import Evaluation, TrainConfig

#: seconds matter here, and accuracy does not
EVALUATION = Evaluation(images=40, complete_images=3, radius_images=20, radius_steps=5, attack_steps=5, timeout=5)


def config(**changes: Any) -> TrainConfig:
    """A small CNN on digits, two epochs of twelve steps."""
    fields: dict[str, Any] = {
        "dataset": "digits",
        "network": "small-cnn",
        "network_options": {"width": 2, "hidden": 8},
        "epsilon": 0.02,
        "epochs": 2,
        "batch_size": 97,
        "evaluation": EVALUATION,
    }
    return TrainConfig(**{**fields, **changes})
