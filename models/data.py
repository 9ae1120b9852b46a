"""The images that the networks of this folder are trained and tested on."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from verifier.errors import InputError

DIGITS_TRAIN = 1297
IDX_HEADER = {1: 8, 3: 16}  # axes -> bytes: a magic number and one size per axis, 4 bytes each


@dataclass(frozen=True)
class Images:
    """Grey images ``x`` (N, 1, side, side) float32 in [0, 1] with labels ``y`` (N,) int64."""

    x: np.ndarray
    y: np.ndarray


def digits() -> tuple[Images, Images]:
    """scikit-learn's 8x8 digits: the first 1297 to train, the last 500 to test."""
    pixels, labels = load_digits(return_X_y=True)
    x = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    y = np.asarray(labels).astype(np.int64)
    return Images(x[:DIGITS_TRAIN], y[:DIGITS_TRAIN]), Images(x[DIGITS_TRAIN:], y[DIGITS_TRAIN:])


def mnist(folder: Path) -> tuple[Images, Images]:
    """MNIST from its published files in ``folder/MNIST/raw``: 60,000 images to train, 10,000 to test.

    Raises:
        InputError: a file is absent.
    """
    train, test = (_mnist_part(folder / "MNIST" / "raw", prefix) for prefix in ("train", "t10k"))
    return train, test


def _mnist_part(raw: Path, prefix: str) -> Images:
    pixels = _read_idx(raw / f"{prefix}-images-idx3-ubyte.gz", axes=3).reshape(-1, 1, 28, 28)
    labels = _read_idx(raw / f"{prefix}-labels-idx1-ubyte.gz", axes=1)
    return Images(pixels.astype(np.float32) / np.float32(255), labels.astype(np.int64))


def _read_idx(path: Path, axes: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(str(path), "no such file", "name the folder that has MNIST/raw with --data-dir")
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=IDX_HEADER[axes])
