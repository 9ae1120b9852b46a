"""What flags mean, and how bad ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifier.cli.request import (
    NORMS,
    Inputs,
    Request,
    choose,
    parse_channels,
    parse_device,
    parse_memory,
    parse_norm,
    parse_targets,
)
from verifier.errors import InputError

NAMES = ("--index", "--epsilon", "--norm", "--targets", "--mean", "--std", "--no-clip", "--data-dir")
FLAGS: dict[str, object] = {name: None for name in NAMES}


def test_targets():
    assert parse_targets("all") is None
    assert parse_targets("3") == 3
    for text in ("", "-1", "ALL", "3.5"):
        with pytest.raises(InputError, match="--targets"):
            parse_targets(text)


def test_norms():
    assert [parse_norm(text) for text in NORMS] == list(NORMS)
    with pytest.raises(InputError, match="--norm"):
        parse_norm("3")


def test_channels():
    assert parse_channels(None, "--mean") is None
    assert parse_channels("0.5", "--mean") == (0.5,)
    assert parse_channels("0.49, 5e-1,0.45", "--std") == (0.49, 0.5, 0.45)
    for text in ("", "a", "1,,2", "nan", "1,inf", "1,1e400"):
        with pytest.raises(InputError, match="--std"):
            parse_channels(text, "--std")


def test_devices():
    assert [parse_device(text) for text in ("auto", "cpu", "cuda", "cuda:3")] == ["auto", "cpu", "cuda", "cuda:3"]
    for text in ("", "meta", "mps", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu\n"):
        with pytest.raises(InputError, match="--device"):
            parse_device(text)


def test_a_specification_is_one_query():
    request = Request(Path("n.onnx"), choose(Path("s.vnnlib"), None, FLAGS))
    assert request.what == Path("s.vnnlib")
    assert request.count == 1


def test_inputs_of_a_data_set_are_a_query_each():
    what = choose(None, "digits", {**FLAGS, "--index": "0:20", "--epsilon": "8/255"})
    assert isinstance(what, Inputs)
    assert what.epsilon == 8 / 255
    assert (what.norm, what.targets, what.clip, what.mean, what.folder) == ("inf", None, True, None, None)
    assert Request(Path("n.onnx"), what).count == 20


@pytest.mark.parametrize(
    "spec, dataset, flags, place",
    [
        (None, None, {}, "nothing to verify"),
        (Path("s"), "digits", {}, "--dataset"),
        (Path("s"), None, {"--epsilon": "0.1"}, "--epsilon"),
        (Path("s"), None, {"--no-clip": True}, "--no-clip"),
        (None, "digits", {"--epsilon": "0.1"}, "--index"),
        (None, "digits", {"--index": "0"}, "--epsilon"),
        (None, "digits", {"--index": "5:5", "--epsilon": "0.1"}, "--index"),
        (None, "digits", {"--index": "0:99999999999", "--epsilon": "0.1"}, "--index"),
        (None, "digits", {"--index": "0", "--epsilon": "0.1", "--norm": "3"}, "--norm"),
    ],
)
def test_what_does_not_fit_together(spec: Path | None, dataset: str | None, flags: dict[str, object], place: str):
    with pytest.raises(InputError, match=place):
        choose(spec, dataset, {**FLAGS, **flags})


@pytest.mark.parametrize(
    "text, size",
    [("4GiB", 4 << 30), ("4 gib", 4 << 30), ("1.5G", 1_500_000_000), ("500MB", 500_000_000), ("2097152", 2 << 20)]
    + [("4096KiB", 4 << 20), ("1T", 10**12), ("7Mi", 7 << 20)],
)
def test_sizes_of_memory(text: str, size: int):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "4XiB", "1e9", "0", "100kB", "4GiB/s", "nan", "4iB4"])
def test_what_is_no_size_of_memory(text: str):
    with pytest.raises(InputError, match="--memory"):
        parse_memory(text)
