"""A calibrated detector as a file, and what it says of inputs."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.analysis.brackets import Metric
from verifier.analysis.margins.detector import Threshold
from verifier.analysis.margins.pseudo import PseudoMargin
from verifier.analysis.margins.scores import ScoreOptions, score
from verifier.errors import InputError
from verifier.graph.ir import Graph

FORMAT = "verifier margin detector 1"
SCOPE = "i.i.d. data only: holds for inputs drawn as the calibration set was, not for chosen or shifted ones"


@dataclass(frozen=True, eq=False)
class Detector:
    """A score with a threshold, for one network.

    Args:
        score: name of the score.
        threshold: as calibrated.
        network: path as given at calibration.
        sha256: of the network.
        metric: norm of the margin, and units.
        pseudo: what a `pseudo-margin` has learned.
    """

    score: str
    threshold: Threshold
    network: str
    sha256: str
    metric: Metric
    pseudo: PseudoMargin | None = None

    def scores(self, graph: Graph, inputs: Sequence[np.ndarray], device: str = "auto") -> np.ndarray:
        """Scores (n,) of inputs (*X) in the units of the data.

        Raises:
            InputError: the graph is of another network.
        """
        self.require(graph)
        options = ScoreOptions(self.metric, self.threshold.epsilon, self.pseudo, device)
        return score(self.score, graph, inputs, options)

    def flags(self, scores: np.ndarray) -> np.ndarray:
        """(n,) bool: whether an input is brittle, as far as the detector can tell."""
        return scores <= self.threshold.value

    def require(self, graph: Graph) -> None:
        """Raises:
        InputError: the detector was calibrated for another network.
        """
        sha256 = graph.file.sha256 if graph.file else None
        if sha256 != self.sha256:
            where = str(graph.file.path) if graph.file else "network"
            what = f"its SHA-256 is {str(sha256)[:12]}, the detector was calibrated for {self.sha256[:12]}"
            raise InputError(where, what, f"give {self.network}, or calibrate again")

    def as_object(self, weights: bool = True) -> dict[str, Any]:
        """What the JSON file has; `weights` are those of a pseudo-margin."""
        t = self.threshold
        made: dict[str, Any] = {
            "format": FORMAT,
            "guarantee": t.guarantee,
            "scope": SCOPE,
            "score": self.score,
            "lambda": None if math.isinf(t.value) else t.value,
            "rule": t.rule,
            "level": t.alpha,
            "delta": t.delta,
            "epsilon": t.epsilon,
            "norm": self.metric.norm,
            "clip": self.metric.clip,
            "mean": self.metric.mean,
            "std": self.metric.std,
            "n": t.n,
            "passed": t.passed,
            "risky": t.risky,
            "network": self.network,
            "sha256": self.sha256,
        }
        return made | ({"pseudo": None if self.pseudo is None else _packed(self.pseudo)} if weights else {})

    def document(self) -> str:
        """The text of the file."""
        return json.dumps(self.as_object(), indent=1, allow_nan=False) + "\n"


def read_detector(path: Path) -> Detector:
    """A detector from its file.

    Raises:
        InputError: the file cannot be read or is something else.
    """
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        if made["format"] != FORMAT:
            raise ValueError(f"format {made['format']!r}")
        return _unpacked_detector(made)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        what = f"is no detector ({type(error).__name__}: {error})"
        raise InputError(str(path), what, "give a file that verifier margins calibrate --out has written") from error


def _unpacked_detector(made: Mapping[str, Any]) -> Detector:
    value = -math.inf if made["lambda"] is None else float(made["lambda"])
    threshold = Threshold(
        value, made["rule"], float(made["level"]), made["delta"], float(made["epsilon"]), int(made["n"]),
        int(made["passed"]), int(made["risky"]),
    )  # fmt: skip
    clip = None if made["clip"] is None else (float(made["clip"][0]), float(made["clip"][1]))
    metric = Metric(str(made["norm"]), clip, made["mean"], made["std"])
    pseudo = None if made["pseudo"] is None else _unpacked(made["pseudo"])
    return Detector(str(made["score"]), threshold, str(made["network"]), str(made["sha256"]), metric, pseudo)


def _packed(pseudo: PseudoMargin) -> dict[str, Any]:
    tensors = [pseudo.mean, pseudo.scale, *(part for layer in pseudo.layers for part in layer)]
    return {"on": pseudo.on, "tensors": [{"shape": list(t.shape), "float32": _text(t)} for t in tensors]}


def _text(tensor: Tensor) -> str:
    return base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode("ascii")


def _unpacked(made: Mapping[str, Any]) -> PseudoMargin:
    def tensor(one: Mapping[str, Any]) -> Tensor:
        values = np.frombuffer(base64.b64decode(one["float32"]), dtype="<f4")
        return torch.from_numpy(values.reshape(one["shape"]).copy())

    mean, scale, *rest = [tensor(one) for one in made["tensors"]]
    return PseudoMargin(made["on"], mean, scale, tuple(zip(rest[::2], rest[1::2], strict=True)))
