"""Output files are refused early or written whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from verifier.cli.files import check_writable, write_whole
from verifier.errors import InputError


def test_writing_replaces_the_content_and_leaves_nothing_else(tmp_path: Path):
    target = tmp_path / "out.json"
    for text in ("first, longer", "second"):
        write_whole(target, text, "--json")
        assert target.read_text() == text
    assert os.listdir(tmp_path) == ["out.json"]


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(tmp_path / "link", "new", "--json")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_is_written_to_and_not_replaced():
    check_writable(Path(os.devnull), "--json")
    write_whole(Path(os.devnull), "text", "--json")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("name, what", [(".", "is a folder"), ("absent/file", "there is no folder")])
def test_places_that_cannot_be_written_are_named_early(tmp_path: Path, name: str, what: str):
    with pytest.raises(InputError, match=f"--witness .*{what}"):
        check_writable(tmp_path / name, "--witness")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "\ud800", "--json")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]
