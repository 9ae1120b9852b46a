"""The package's front door: every name is there, and opening it costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import verifier


@pytest.mark.parametrize("name", verifier.__all__)
def test_every_exported_name_exists(name: str):
    assert getattr(verifier, name) is not None
    assert name in dir(verifier)


def test_importing_the_package_imports_no_heavy_module():
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "matplotlib", "sklearn", "typer", "rich"}
    script = f"import sys, verifier; print(sorted({heavy!r} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(verifier, "no_such_name")  # noqa: B009 - the point is a name that type checkers refuse


def test_type_checkers_and_the_interpreter_see_the_same_names():
    tree = ast.parse(Path(verifier.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    declared = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert set(declared) == set(verifier.__all__) - {"__version__"}
    for name, module in declared.items():
        assert module is not None
        assert getattr(import_module(module), name) is getattr(verifier, name)
