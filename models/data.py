"""The images that the networks of this folder are trained and tested on."""

from __future__ import annotations

from pathlib import Path

from verifier.specs.datasets import Dataset, load_dataset

Images = Dataset


def digits() -> tuple[Images, Images]:
    """scikit-learn's digits: images to train, images to test."""
    return load_dataset("digits", split="train"), load_dataset("digits", split="test")


def mnist(folder: Path) -> tuple[Images, Images]:
    """MNIST from its published files: images to train, images to test.

    Raises:
        InputError: a file is absent.
    """
    return load_dataset("mnist", folder, "train"), load_dataset("mnist", folder, "test")
