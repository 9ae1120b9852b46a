"""The command `view`: files are made, and what cannot be drawn is one sentence."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Command

TOY = ("docs/one-framework/toy.onnx", "docs/one-framework/toy.vnnlib")
MLP = ("models/digits_mlp.onnx", "--dataset", "digits", "--index", "0", "--epsilon", "0.02")
QUICK = ("--methods", "ibp,crown")


@pytest.fixture(autouse=True)
def at_the_root(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)


@pytest.mark.parametrize(
    ("name", "begins"), [("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG"), ("a.html", b"<!DOCTYPE html>")]
)
def test_files_of_every_form(command: Command, tmp_path: Path, name: str, begins: bytes):
    done = command("view", *TOY, *QUICK, "--out", tmp_path / name)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == "Neuron 0 of z" and done.out.splitlines()[-1] == f"drawn in {tmp_path / name}"
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_users_network(command: Command, tmp_path: Path):
    out = tmp_path / "mlp.svg"
    done = command("view", *MLP, "--picture", "pair", "--layer", "Relu_2", "--neurons", "3,7", "--out", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert "Inputs of neurons 3 and 7 of Relu_2" in out.read_text(encoding="utf-8")


def test_json_holds_the_coordinates(command: Command, tmp_path: Path):
    done = command("view", *TOY, *QUICK, "--picture", "logits", "--out", tmp_path / "a.svg", "--json", "-")
    (film,) = json.loads(done.out)["pictures"]
    crown = next(mark for mark in film["frames"][0]["marks"] if mark["label"] == "crown")
    assert max(x for x, _ in crown["points"]) == pytest.approx(3, abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--out", "a.gif"), "use .svg, .png, .html"),
        (("--out", "no/such/folder/a.svg"), "there is no folder"),
        (("--out", "a.svg", "--layer", "Relu_9"), "choose one of Relu_2, Relu_4"),
        (("--out", "a.svg", "--neurons", "0,50"), "use 0 to 49"),
        (("--out", "a.svg", "--neurons", "0;1"), "write it like 3,7"),
        (("--out", "a.svg", "--logits", "1"), "is not two numbers"),
        (("--out", "a.svg", "--logits", "1,10"), "no output 10"),
        (("--out", "a.svg", "--picture", "triangle"), "choose all or one of"),
        (("--out", "a.svg", "--methods", "crown,magic"), "magic"),
        (("--out", "a.svg", "--index", "0:3"), "give one"),
    ],
)
def test_bad_input_is_one_sentence(command: Command, tmp_path: Path, flags: tuple[str, ...], said: str):
    flags = tuple(str(tmp_path / flag) if flag == "a.svg" else flag for flag in flags)
    done = command("view", *MLP, *flags)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err and not list(tmp_path.iterdir())


def test_the_commands_of_the_page_make_its_pictures(command: Command, root: Path, tmp_path: Path):
    text = (root / "docs" / "one-framework.md").read_text(encoding="utf-8")
    made = set()
    for line in re.findall(r"^verifier (view docs.*)$", text, flags=re.MULTILINE):
        *words, out = shlex.split(line)
        assert command(*words, tmp_path / Path(out).name).status == 0
        made.add(Path(out).name)
        pictures = [
            (folder / Path(out).name).read_text(encoding="utf-8") for folder in (tmp_path, root / Path(out).parent)
        ]
        words_of = [re.findall(r"<text[^>]*>([^<]*)</text>", picture) for picture in pictures]
        timed = re.compile(r"\([0-9.e-]+ s\)")
        assert [timed.sub("", word) for word in words_of[0]] == [timed.sub("", word) for word in words_of[1]]
    shown = set(re.findall(r"\]\(one-framework/([a-z]+\.svg)\)", text))
    assert made == shown == {path.name for path in (root / "docs" / "one-framework").glob("*.svg")}
