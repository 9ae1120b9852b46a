"""Data sets: files written here in the published formats, and every way they can be wrong."""

from __future__ import annotations

import gzip
import os
import pickle

import numpy as np
import pytest

from verifier.errors import InputError
from verifier.specs.datasets import load_dataset, parse_index


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
LABELS = np.array([7, 2, 1])


def test_digits_have_a_fixed_split():
    test, train = load_dataset("digits"), load_dataset("digits", split="train")
    assert test.x.shape == (500, 1, 8, 8) and len(train) == 1297
    assert test.x.dtype == np.float32 and test.x.min() == 0 and test.x.max() == 1
    assert test.y.dtype == np.int64 and set(test.y) == set(range(10))


@pytest.mark.parametrize("folder, suffix", [("MNIST/raw", ""), ("", ""), ("MNIST/raw", ".gz")])
def test_mnist(tmp_path, folder, suffix):
    pack = gzip.compress if suffix else bytes
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / f"t10k-images-idx3-ubyte{suffix}").write_bytes(pack(idx(IMAGES)))
    (tmp_path / folder / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS)))
    data = load_dataset("mnist", tmp_path)
    assert data.x.shape == (3, 1, 28, 28) and data.x.dtype == np.float32
    assert np.allclose(data.x[:, 0] * 255, IMAGES) and data.y.tolist() == [7, 2, 1]
    with pytest.raises(InputError, match="train-images-idx3-ubyte.*published"):
        load_dataset("mnist", tmp_path, split="train")


def test_the_folder_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("elsewhere", "data"):
        (tmp_path / place).mkdir()
    (tmp_path / "data" / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    monkeypatch.delenv("VERIFIER_DATA", raising=False)
    assert len(load_dataset("mnist")) == 3
    monkeypatch.setenv("VERIFIER_DATA", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS[::-1]))
    assert load_dataset("mnist").y.tolist() == [1, 2, 7]
    with pytest.raises(InputError, match="t10k-images"):
        load_dataset("mnist", tmp_path / "elsewhere")


@pytest.mark.parametrize("damage", [b"", b"\x00\x00\x08", idx(IMAGES)[:-1], b"\x00\x00\x0d\x01\x00\x00\x00\x00"])
def test_damaged_mnist(tmp_path, damage):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(damage)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(InputError, match="t10k-images-idx3-ubyte: is not a whole IDX file"):
        load_dataset("mnist", tmp_path)


def test_swapped_and_damaged_archives(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(LABELS))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(InputError, match="have shapes"):
        load_dataset("mnist", tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(gzip.compress(idx(IMAGES))[:50])
    with pytest.raises(InputError, match="gzip data is damaged"):
        load_dataset("mnist", tmp_path)


def test_cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072)).astype(np.uint8)
    records = np.concatenate([np.array([[3], [8]], dtype=np.uint8), pixels], axis=1)
    (folder / "test_batch.bin").write_bytes(records.tobytes())
    data = load_dataset("cifar10", tmp_path)
    assert data.x.shape == (2, 3, 32, 32) and data.y.tolist() == [3, 8]
    assert np.allclose(data.x.reshape(2, -1) * 255, pixels)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(records.tobytes())
    assert len(load_dataset("cifar10", tmp_path, split="train")) == 10
    (folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(InputError, match="whole number of records"):
        load_dataset("cifar10", tmp_path)


def test_the_pickled_cifar10_is_not_opened(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="test_batch.bin.*pickles, which are not read"):
        load_dataset("cifar10", tmp_path)


def test_npz(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x=np.ones((2, 5)), y=np.array([1, 0], dtype=np.uint8))
    data = load_dataset(path)
    assert data.x.dtype == np.float32 and data.y.dtype == np.int64 and data.name == str(path)
    assert load_dataset(str(path)).x.shape == (2, 5)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": np.ones((2, 5))}, "has no array 'y'"),
        ({"x": np.ones((2, 5)), "y": np.ones(3, dtype=int)}, "one label for each input"),
        ({"x": np.ones((2, 5)), "y": np.ones(2)}, "y integers"),
        ({"x": np.array(["a", "b"]), "y": np.ones(2, dtype=int)}, "x must hold numbers"),
        ({"x": np.array([[0.0], [np.nan]]), "y": np.ones(2, dtype=int)}, "input 1 is not finite"),
        ({"x": np.array([[1e300], [0.0]]), "y": np.ones(2, dtype=int)}, "input 0 is not finite in float32"),
        ({"x": np.ones((0, 5)), "y": np.ones(0, dtype=int)}, "holds no inputs"),
        ({"x": np.array([{}, {}]), "y": np.ones(2, dtype=int)}, "not a readable .npz"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "bad.npz")


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    for path, message in (("text.npz", "not a readable .npz"), ("none.npz", "no such file")):
        with pytest.raises(InputError, match=message):
            load_dataset(tmp_path / path)


def test_unknown_names():
    with pytest.raises(InputError, match="'imagenet' is not known; use digits, mnist, cifar10 or an .npz file"):
        load_dataset("imagenet")
    with pytest.raises(InputError, match="'valid' is not known"):
        load_dataset("digits", split="valid")


@pytest.mark.parametrize(
    "text, chosen",
    [("3", [3]), ("0:4", [0, 1, 2, 3]), ("0:10:5", [0, 5]), ("1,5,7", [1, 5, 7]), ("8:10, 0", [8, 9, 0])],
)
def test_indices(text, chosen):
    assert parse_index(text, 10) == chosen


@pytest.mark.parametrize(
    "text, message",
    [
        ("10", "goes beyond the last of 10"),
        ("0:11", "goes beyond"),
        ("5:5", "selects nothing"),
        ("6:2", "selects nothing"),
        ("0:5:0", "selects nothing"),
        ("-1", "is not an index"),
        ("a", "is not an index"),
        ("", "is not an index"),
        ("1,", "is not an index"),
        ("0:1:1:1", "is not an index"),
    ],
)
def test_bad_indices(text, message):
    with pytest.raises(InputError, match=message):
        parse_index(text, 10)


def test_published_files():
    """The published files, if they were unpacked into the data folder."""
    folder = os.environ.get("VERIFIER_DATA")
    if not folder:
        pytest.skip("needs the published files in $VERIFIER_DATA")
    assert load_dataset("mnist").x.shape == (10000, 1, 28, 28)
    assert load_dataset("cifar10").y[:5].tolist() == [3, 8, 8, 0, 6]
