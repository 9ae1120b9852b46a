"""Labelled images in the units that specifications use: pixels in [0, 1]."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from verifier.errors import InputError

_SPLITS = ("train", "test")
_DIGITS_TRAIN = 1297  # of the 1797 images; the last 500 are the test split
_IDX_NAMES = {"train": "train", "test": "t10k"}
_CIFAR_NAMES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_CIFAR_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then 1024 each of red, green, blue


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with their classes.

    Args:
        x: (N, ...) float32, in [0, 1] for images.
        y: (N,) int64.
        name: as it was asked for.
    """

    x: np.ndarray
    y: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.y)


def load_dataset(name: str | Path, data_dir: str | Path | None = None, split: str = "test") -> Dataset:
    """Load a data set by name or from a file.

    Args:
        name: ``digits`` (scikit-learn's 8x8 digits, x (N, 1, 8, 8); the first 1297 images are ``train``, the last
            500 ``test``), ``mnist`` (IDX files, gzipped or not, x (N, 1, 28, 28)), ``cifar10`` (the binary version,
            x (N, 3, 32, 32); the Python version is made of pickles, which can run code when read, so it is not),
            or an ``.npz`` file with arrays ``x`` and ``y`` (values as they are; it has no splits).
        data_dir: where the files of mnist and cifar10 are; default ``$VERIFIER_DATA``, then ``./data``.
        split: ``train`` or ``test``.

    Raises:
        InputError: unknown name, missing or damaged files, values that are not finite.
    """
    if split not in _SPLITS:
        raise InputError("split", f"{split!r} is not known", f"use {' or '.join(_SPLITS)}")
    text = str(name)
    if text.endswith(".npz"):
        return _npz(Path(text))
    if text not in _LOADERS:
        raise InputError("--dataset", f"{text!r} is not known", f"use {', '.join(_LOADERS)} or an .npz file")
    x, y = _LOADERS[text](split, _folders(data_dir))
    return _checked(x, y, text, text)


def parse_index(text: str, count: int) -> list[int]:
    """Which inputs of a data set are meant.

    Args:
        text: numbers and ranges separated by commas, like ``3``, ``1,5,7``, ``0:20`` (20 not included), ``0:100:5``.
        count: size of the data set.

    Raises:
        InputError: the text is malformed, selects nothing, or goes beyond the data set.
    """
    chosen: list[int] = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*\d{1,12}(:\d{1,12}){0,2}\s*", part):
            raise InputError("--index", f"{part!r} is not an index", "write it like 3, 1,5,7, 0:20 or 0:100:5")
        numbers = [int(number) for number in part.split(":")]
        step = numbers[2] if len(numbers) == 3 else 1
        last = numbers[1] if len(numbers) > 1 else numbers[0] + 1
        if step == 0 or last <= numbers[0]:
            raise InputError("--index", f"{part.strip()!r} selects nothing", "write first:last with first < last")
        if last > count:
            raise InputError("--index", f"{part.strip()!r} goes beyond the last of {count} inputs", "choose less")
        chosen += range(numbers[0], last, step)
    return chosen


def _checked(x: np.ndarray, y: np.ndarray, name: str, where: str) -> Dataset:
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "iub":
        raise InputError(where, f"x holds {x.dtype}, y holds {y.dtype}", "x must hold numbers and y integers")
    if y.ndim != 1 or x.ndim < 1 or len(x) != len(y):
        raise InputError(where, f"x has shape {x.shape}, y {y.shape}", "give one label for each input")
    if len(x) == 0:
        raise InputError(where, "holds no inputs", "choose another file")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    finite = np.isfinite(x.reshape(len(x), -1)).all(1)
    if not finite.all():
        raise InputError(where, f"input {int(finite.argmin())} is not finite in float32", "replace NaN and infinity")
    return Dataset(x, y.astype(np.int64), name)


def _npz(path: Path) -> Dataset:
    data = _read(path)  # for its messages
    del data
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [key for key in ("x", "y") if key not in arrays]
            if missing:
                raise InputError(str(path), f"has no array {missing[0]!r}", "save it with np.savez(file, x=..., y=...)")
            x, y = arrays["x"], arrays["y"]
    except InputError:
        raise
    except Exception as error:  # whatever a damaged archive makes numpy and zipfile raise
        raise InputError(str(path), f"is not a readable .npz file ({error})", "save it with np.savez") from None
    return _checked(x, y, str(path), str(path))


def _digits(split: str, folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    part = slice(None, _DIGITS_TRAIN) if split == "train" else slice(_DIGITS_TRAIN, None)
    return (images[part] / 16).reshape(-1, 1, 8, 8), labels[part]


def _mnist(split: str, folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    published = "they are published at https://ossci-datasets.s3.amazonaws.com/mnist/"
    names = [f"{_IDX_NAMES[split]}-{kind}" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    places = [place for folder in folders for place in (folder / "MNIST" / "raw", folder)]
    images, labels = (_idx(_find([name, f"{name}.gz"], places, "mnist", published)) for name in names)
    if images.ndim != 3 or labels.ndim != 1:
        raise InputError("mnist", f"the IDX files have shapes {images.shape} and {labels.shape}", published)
    return (images / np.float32(255))[:, None], labels


def _cifar10(split: str, folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    published = (
        "they are published in https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (the Python version is made of "
        "pickles, which are not read)"
    )
    places = [place for folder in folders for place in (folder / "cifar-10-batches-bin", folder)]
    parts = []
    for name in _CIFAR_NAMES[split]:
        path = _find([name], places, "cifar10", published)
        data = np.frombuffer(_read(path), dtype=np.uint8)
        if len(data) == 0 or len(data) % _CIFAR_RECORD:
            raise InputError(str(path), f"{len(data)} bytes are no whole number of records", "download it again")
        parts.append(data.reshape(-1, _CIFAR_RECORD))
    records = np.concatenate(parts)
    return records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255), records[:, 0]


_LOADERS: dict[str, Callable[[str, list[Path]], tuple[np.ndarray, np.ndarray]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
}


def _folders(data_dir: str | Path | None) -> list[Path]:
    if data_dir is not None:
        return [Path(data_dir)]
    variable = os.environ.get("VERIFIER_DATA")
    return [*([Path(variable)] if variable else []), Path("data")]


def _find(names: list[str], places: list[Path], dataset: str, published: str) -> Path:
    for place in places:
        for name in names:
            if (place / name).is_file():
                return place / name
    looked = ", ".join(map(str, places))
    raise InputError(dataset, f"{' or '.join(names)} is in none of {looked}", f"{published}; see --data-dir")


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise InputError(str(path), "no such file", "check the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(str(path), "the gzip data is damaged", "download it again") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the path and its rights") from None


def _idx(path: Path) -> np.ndarray:
    """The array of an IDX file of unsigned bytes: two zeros, type 8, number of axes, their sizes, the data."""
    data = _read(path)
    axes = data[3] if len(data) >= 4 and data[:3] == b"\x00\x00\x08" else 0
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").tolist()) if axes and len(data) >= start else ()
    if not shape or len(data) - start != prod(shape):
        raise InputError(str(path), "is not a whole IDX file of bytes", "download it again")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
