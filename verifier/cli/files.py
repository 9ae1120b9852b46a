"""Output files: known to be writable before the work starts, and never half written."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verifier.errors import InputError

#: what stands for standard output in place of a file
STDOUT = Path("-")


def check_writable(path: Path, flag: str) -> None:
    """Raise where a file could not be written later.

    Raises:
        InputError: the path is a folder, or its folder is absent or not writable; names the flag.
    """
    if path == STDOUT:
        return
    target = path.resolve()
    if target.is_dir():
        raise InputError(f"{flag} {path}", "is a folder", "name a file")
    if not target.parent.is_dir():
        raise InputError(f"{flag} {path}", f"there is no folder {target.parent}", "create it or name another file")
    place = target if target.exists() and not target.is_file() else target.parent
    if not os.access(place, os.W_OK):
        raise InputError(f"{flag} {path}", "cannot be written here", "name a file in a folder of yours")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file of ``--json`` on one line; what is no number is refused."""
    import json

    write_whole(path, json.dumps(content, allow_nan=False) + "\n", "--json")


def write_whole(path: Path, content: str | bytes, flag: str) -> None:
    """Write a file (or text to standard output) so that readers see the old content or the new, never a part.

    Raises:
        InputError: the file cannot be written; names the flag.
    """
    if path == STDOUT and isinstance(content, str):
        sys.stdout.write(content)
        return
    target = path.resolve()
    # A device or a pipe cannot be replaced by a file, and must not be.
    direct = target.exists() and not target.is_file()
    draft = target if direct else target.with_name(f".{target.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        if not direct:
            draft.replace(target)
    except OSError as error:
        raise InputError(f"{flag} {path}", f"cannot be written ({error.strerror})", "name another file") from error
    finally:
        if not direct:
            draft.unlink(missing_ok=True)
