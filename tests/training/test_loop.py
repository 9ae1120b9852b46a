"""Runs: exact resume, what a folder may hold, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.runs import config
from verifier.errors import InputError
from verifier.training import loop
from verifier.training.checkpoints import LAST
from verifier.training.config import TrainConfig
from verifier.training.loop import loss_options, train
from verifier.training.losses import LossTerms

#: everything that has a state: radii, averaged weights, decays, augmentation, an attack, and a network that draws
EVENTFUL: dict[str, Any] = {
    "loss": "mtl-ibp",
    "loss_options": {"adaptive_radii": True, "kappa": 0.25, "attack_steps": 1, "bisections": 2},
    "average": 0.9,
    "augment": True,
    "l1": 1e-6,
    "network": "tests.training.test_loop:Forgetful",
    "network_options": {},
}


class Forgetful(nn.Sequential):
    """Draws from torch's global generator in training, for noise on its input."""

    def __init__(self):
        super().__init__(Noise(), nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))


class Noise(nn.Identity):
    def forward(self, input: Tensor) -> Tensor:
        return input + 0.01 * torch.randn_like(input) if self.training else input


def kept(folder: Path) -> dict[str, Any]:
    return torch.load(folder / LAST, weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and numbers are equal bit by bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]


@pytest.mark.parametrize("stops", [(12,), (7, 19)], ids=str)
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, stops: tuple[int, ...]):
    wanted = config(**EVENTFUL)
    whole = train(wanted, tmp_path / "whole")
    for number, stop in enumerate(stops):
        part = train(wanted, tmp_path / "parts", max_steps=stop, resume=number > 0)
        assert part.steps == stop
    resumed = train(wanted, tmp_path / "parts", resume=True)
    assert (whole.steps, resumed.steps) == (24, 24)
    one, other = kept(tmp_path / "whole"), kept(tmp_path / "parts")
    assert float(one["state_dict"]["radii"].max()) > 0
    for part in ("state_dict", "optimizer_states"):
        assert same(one[part], other[part]), part
    assert same(one["training"]["sums"], other["training"]["sums"])
    assert without_times(whole.history) == without_times(resumed.history)
    assert same(dict(whole.network.state_dict()), dict(resumed.network.state_dict()))


def test_a_checkpoint_between_two_epochs_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process that dies leaves what it wrote last; here it dies at step 11 and the checkpoint is of step 8."""
    wanted = config(**EVENTFUL)
    train(wanted, tmp_path / "whole")
    real = loop.training_loss

    def dying(name: str, options: Any) -> Any:
        loss, calls = real(name, options), iter(range(100))

        def call(*arguments: Any) -> LossTerms:
            if next(calls) == 11:
                raise KeyError("killed")
            return loss(*arguments)

        return call

    monkeypatch.setattr(loop, "training_loss", dying)
    with pytest.raises(KeyError):
        train(wanted, tmp_path / "parts", checkpoint_every=4)
    assert kept(tmp_path / "parts")["training"]["position"] == 8
    monkeypatch.undo()
    train(wanted, tmp_path / "parts", resume=True)
    assert same(kept(tmp_path / "whole")["state_dict"], kept(tmp_path / "parts")["state_dict"])


def test_a_finished_run_is_not_trained_further(tmp_path: Path):
    first = train(config(), tmp_path / "run")
    again = train(config(), tmp_path / "run", resume=True)
    assert again.steps == first.steps and again.history == first.history
    assert same(dict(first.network.state_dict()), dict(again.network.state_dict()))


def test_it_learns_and_writes_only_into_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    wanted = config(network="mlp", network_options={"width": 24}, epochs=12, learning_rate=1e-2)
    precision = torch.get_float32_matmul_precision()
    done = train(wanted, tmp_path / "out" / "run")
    assert list((tmp_path / "here").iterdir()) == []
    assert {path.name for path in (tmp_path / "out" / "run").iterdir()} == {LAST, "config.yaml", "tensorboard"}
    assert done.history[-1]["natural"] > 0.85 and done.history[-1]["certified"] > 0.6
    assert done.history[-1]["epsilon"] == wanted.epsilon
    assert not done.network.training
    assert torch.get_float32_matmul_precision() == precision


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    train(config(), tmp_path / "run", max_steps=1)
    with pytest.raises(InputError, match=r"was made with network_options .*'width': 2.*now it is .*'width': 3"):
        other = config(network_options={"width": 3, "hidden": 8})
        train(other, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="add --resume"):
        train(config(), tmp_path / "run")
    with pytest.raises(InputError, match="no such checkpoint"):
        train(config(), tmp_path / "nothing", resume=True)
    (tmp_path / "run" / LAST).write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        train(config(), tmp_path / "run", resume=True)


def test_what_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = loop.training_loss

    def poisoned(name: str, options: Any) -> Any:
        loss, calls = real(name, options), iter(range(100))

        def call(*arguments: Any) -> LossTerms:
            terms = loss(*arguments)
            bad = terms.loss * float("nan") if next(calls) >= 15 else terms.loss
            return LossTerms(bad, terms.correct, terms.certified, terms.radius, terms.parts)

        return call

    monkeypatch.setattr(loop, "training_loss", poisoned)
    with pytest.raises(InputError, match=r"no finite number at step 15; lower --learning-rate.*--resume"):
        train(config(), tmp_path / "run")
    left = kept(tmp_path / "run")
    assert left["training"]["position"] == 12
    assert all(bool(torch.isfinite(value).all()) for value in left["state_dict"].values() if value.is_floating_point())


def test_too_large_a_batch_names_one_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def starving(name: str, options: Any) -> Any:
        def call(*arguments: Any) -> LossTerms:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        return call

    monkeypatch.setattr(loop, "training_loss", starving)
    with pytest.raises(InputError, match=r"--batch-size 97: does not fit the memory of cpu; try --batch-size 48"):
        train(config(), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kapa": 1.0}, "kapa: is not known; choose of .*kappa"),
        ({"kappa": 2}, "kappa"),
        ({"adaptive_radii": "yes"}, "write it like False"),
        ({"radius_by": 3}, "write it like 'ibp'"),
    ],
)
def test_options_of_the_loss(options: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        loss_options(config(loss_options=options))


def test_an_unknown_loss(tmp_path: Path):
    with pytest.raises(InputError, match="choose one of"):
        train(config(loss="hope"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_devices_share_a_batch(tmp_path: Path):
    with pytest.raises(InputError, match="multiple of 2 devices"):
        train(config(), tmp_path / "run", machine=loop.Machine("cpu", 2))


def test_bfloat16_leaves_the_validation_in_float32(tmp_path: Path):
    wanted: TrainConfig = config(precision="bf16", epochs=1)
    done = train(wanted, tmp_path / "run")
    assert all(p.dtype == torch.float32 for p in done.network.parameters())
    assert 0 <= done.history[0]["certified"] <= done.history[0]["natural"] <= 1
