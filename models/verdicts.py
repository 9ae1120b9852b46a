"""Records in the manifest what the engine says about each network, for a later engine to be compared with.

python -m models.verdicts

Only answers are recorded, never `undecided`: a proof or a replayed counterexample stays true whoever finds it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import verifier

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "manifest.json"
IMAGES = range(4)
EPSILONS = (0.005, 0.01, 0.03, 0.1)
SECONDS = 20.0
WORDS = {verifier.Verified: "verified", verifier.Falsified: "falsified"}


def images_of(dataset: str) -> verifier.Dataset:
    """The test images that every machine has: all of digits, the first 64 of MNIST."""
    return verifier.load_dataset(FOLDER / "mnist_samples.npz" if dataset == "mnist" else dataset)


def known(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Verdicts about one network of the manifest."""
    graph, images = verifier.load(FOLDER / entry["file"]), images_of(entry["dataset"])
    answers = []
    for index in IMAGES:
        for epsilon in EPSILONS:
            spec = verifier.robustness(images.x[index], int(images.y[index]), epsilon=epsilon)
            verdict = verifier.verify(graph, spec, timeout=SECONDS)
            if type(verdict) in WORDS:
                answers.append({"index": index, "epsilon": epsilon, "verdict": WORDS[type(verdict)]})
    return answers


def main() -> None:
    manifest = json.loads(MANIFEST.read_text())
    for entry in manifest["models"]:
        entry["known"] = known(entry)
        print(entry["file"], len(entry["known"]), "verdicts")
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
