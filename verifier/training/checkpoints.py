"""Checkpoints: reading one, and whether it belongs to a run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from verifier.errors import InputError
from verifier.training.config import TrainConfig

#: name of the only checkpoint of a run, in its folder
LAST = "last.ckpt"
#: fields of a configuration that training does not depend on
_FREE = ("evaluation", "test_dataset")


def read_checkpoint(path: Path, config: TrainConfig) -> dict[str, Any]:
    """A checkpoint that a run can go on from.

    Raises:
        InputError: there is none, it cannot be read, or it is of another configuration; names the first difference.
    """
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint", "leave --resume out, or name the run's folder")
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(str(path), "is no checkpoint, or a damaged one", "train anew in another folder") from error
    if not isinstance(kept, dict) or "training" not in kept:
        raise InputError(str(path), "is not a checkpoint of verifier train", "name the folder of such a run")
    theirs, ours = kept["training"]["config"], config.model_dump(mode="json")
    for name in ours:
        if name not in _FREE and theirs.get(name) != ours[name]:
            what = f"was made with {name} {_brief(theirs.get(name))}, now it is {_brief(ours[name])}"
            raise InputError(str(path), what, f"leave --{name.replace('_', '-')} as it was, or name another folder")
    return kept


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
