"""The engine still says of the networks of models/ what the manifest recorded, and never the opposite."""

from __future__ import annotations

import json
from typing import Any

import pytest

import verifier
from models.verdicts import FOLDER, MANIFEST, WORDS, images_of

MODELS: list[dict[str, Any]] = json.loads(MANIFEST.read_text())["models"]


@pytest.mark.parametrize("entry", MODELS, ids=lambda entry: entry["file"])
def test_known_verdicts(entry: dict[str, Any]):
    graph, images = verifier.load(FOLDER / entry["file"]), images_of(entry["dataset"])
    assert "verified" in {answer["verdict"] for answer in entry["known"]}
    for answer in entry["known"]:
        index = answer["index"]
        spec = verifier.robustness(images.x[index], int(images.y[index]), epsilon=answer["epsilon"])
        assert WORDS.get(type(verifier.verify(graph, spec))) == answer["verdict"], answer
