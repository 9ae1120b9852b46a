"""What is trained on, in which order, and how it is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verifier.errors import InputError
from verifier.specs.datasets import load_dataset
from verifier.training.data import AUGMENT, Batches, flip_and_crop, generator, load_training_data


def test_validation_is_held_out_of_the_training_split():
    data = load_training_data("digits", validation=0.2, seed=3)
    everything, test = load_dataset("digits", split="train"), load_dataset("digits", split="test")
    together = torch.cat([data.train.x, data.validation.x]).flatten(1)
    assert len(data.validation) == round(0.2 * len(everything))

    def rows(x: torch.Tensor) -> list[bytes]:
        return sorted(row.numpy().tobytes() for row in x)

    assert rows(together) == rows(torch.from_numpy(everything.x).flatten(1))
    assert not set(rows(together)) & set(rows(torch.from_numpy(test.x).flatten(1)))
    assert data.classes == 10 and data.shape == (1, 8, 8)
    assert data.mean[0] == pytest.approx(float(data.train.x.mean()))


def test_another_seed_holds_out_others():
    one, other = (load_training_data("digits", seed=seed).validation.x for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [([[0.5], [2.0]], [0, 1], "0.5 to 2"), ([[0.5], [1.0]], [1, 1], "two classes"), ([[0.5], [1.0]], [-1, 1], "two")],
)
def test_data_that_cannot_be_trained_on(tmp_path: Path, x: list, y: list, said: str):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array(x), y=np.array(y))
    with pytest.raises(InputError, match=said):
        load_training_data(str(path))


def test_a_folder_without_files_names_them_and_their_source(tmp_path: Path):
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*published at https"):
        load_training_data("mnist", tmp_path)
    with pytest.raises(InputError, match=r"data_batch_1.bin.*published in https"):
        load_training_data("cifar10", tmp_path)


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 3), st.data())
def test_batches_go_on_where_they_stopped(count: int, size: int, epochs: int, data: st.DataObject):
    whole = list(Batches(count, size, epochs, seed=5))
    assert len(whole) == len(Batches(count, size, epochs, seed=5))
    rest = Batches(count, size, epochs, seed=5)
    rest.load_state_dict({"position": data.draw(st.integers(0, len(whole)))})
    for (step, indices), (again, same) in zip(whole[rest.position :], rest, strict=True):
        assert step == again and torch.equal(indices, same)
    for epoch in range(epochs):
        per = rest.per_epoch
        seen = torch.cat([indices for _, indices in whole[epoch * per : (epoch + 1) * per]])
        assert len(seen.unique()) == len(seen) == per * rest.size


def test_processes_share_every_batch():
    whole = [indices for _, indices in Batches(30, 8, 1, seed=0)]
    parts = []
    for rank in range(2):
        batches = Batches(30, 8, 1, seed=0)
        batches.rank, batches.world = rank, 2
        parts.append([indices for _, indices in batches])
    for one, two, both in zip(*parts, whole, strict=True):
        assert sorted(torch.cat([one, two]).tolist()) == sorted(both.tolist())


@given(st.integers(0, 3), st.integers(0, 100))
def test_a_crop_is_a_window_of_the_image_with_its_edge_repeated(padding: int, seed: int):
    x = torch.arange(2 * 3 * 5 * 6, dtype=torch.float32).reshape(2, 3, 5, 6)
    y = flip_and_crop(x, padding, generator(seed, AUGMENT))
    wide = torch.nn.functional.pad(x, (padding,) * 4, mode="replicate")
    for image in range(2):
        windows = [
            window.flip(2) if flipped else window
            for flipped in (False, True)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for window in [wide[image, :, top : top + 5, left : left + 6]]
        ]
        assert any(torch.equal(y[image], window) for window in windows)


def test_random_numbers_depend_on_every_number():
    drawn = {tuple(torch.rand(2, generator=generator(*key)).tolist()) for key in [(0, 1), (1, 0), (0, 1, 0), (0, 1, 1)]}
    assert len(drawn) == 4
