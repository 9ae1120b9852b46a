"""Configurations: from files and flags, there and back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import config
from verifier.errors import InputError
from verifier.training.config import read_config, write_config


def test_there_and_back(tmp_path: Path):
    one = config(average=0.9, rate={"kind": "decays", "milestones": [1]}, loss_options={"kappa": 0.5})
    write_config(one, tmp_path / "c.yaml")
    assert read_config(tmp_path / "c.yaml", {}) == one


def test_flags_win_and_options_are_merged(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("dataset: digits\nepsilon: 2/255\nloss_options: {kappa: 0.5, alpha: 0.1}\n")
    found = read_config(path, {"epochs": 3, "loss_options": {"kappa": 0.25}})
    assert (found.epochs, found.loss_options) == (3, {"kappa": 0.25, "alpha": 0.1})
    assert found.epsilon == pytest.approx(2 / 255)
    assert found.final_epsilon == found.epsilon


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "benchmarks" / "training").glob("*.yaml")))
def test_the_configurations_of_the_benchmarks(path: Path):
    from verifier.training.evaluate import check_evaluation
    from verifier.training.loop import loss_options
    from verifier.training.losses import training_loss

    found = read_config(path, {})
    training_loss(found.loss, loss_options(found))
    check_evaluation(found.evaluation)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"epsilon": "-1"}, "--epsilon: .*negative"),
        ({"epsilon": "a lot"}, "--epsilon: .*not a number"),
        ({"epsilon": 0.1, "epochs": 0}, "--epochs"),
        ({"epsilon": 0.1, "ramp": [5, 2]}, "ramp from 5 to 2"),
        ({"epsilon": 0.1, "ramp": [-1, 2]}, "ramp from -1 to 2"),
        ({"epsilon": 0.1, "ramp": [0, 9], "epochs": 8}, "8 epochs"),
        ({"epsilon": 0.1, "rate": {"milestones": [3, 2]}}, "milestones 3, 2"),
        ({"epsilon": 0.1, "learning_rate": -1.0}, "--learning-rate"),
        ({"epsilon": 0.1, "precision": "float8"}, "--precision"),
        ({"epsilon": 0.1, "colour": "red"}, "colour is no field"),
        ({}, "--epsilon: is missing"),
    ],
)
def test_what_makes_no_sense(flags: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        read_config(None, {"dataset": "digits", **flags})


@pytest.mark.parametrize(
    ("text", "said"), [("- a\n", "mapping"), ("a: [", "YAML"), ("dataset: digits\nepsilon: x\n", "c.yaml: epsilon")]
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, said: str):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_config(path, {})
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml", {})
