"""What auto_LiRPA 0.3 (2022) expects of the numpy and torch of its day, lent to it while it needs them and no longer.

Version 0.7 needs none of it. Nothing here imports auto_LiRPA.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch


@contextmanager
def quiet() -> Iterator[None]:
    """While auto_LiRPA runs: warnings are dropped, also those that it asks for, and Python's filters are kept."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def import_shims() -> Iterator[None]:
    """While auto_LiRPA is imported: names that have gone, and no lasting change of warnings, logging or recursion."""
    root, depth = logging.getLogger(), sys.getrecursionlimit()
    handlers = list(root.handlers)
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(_lent_module("numpy.lib.arraysetops", isin=np.isin))
        helper = import_module("torch.onnx.symbolic_helper")
        stack.enter_context(_lent(helper, "_set_opset_version", lambda version: None))
        yield
    root.handlers[:] = handlers
    sys.setrecursionlimit(depth)


@contextmanager
def tracing_shims() -> Iterator[None]:
    """While a module is traced: attributes of a node by ``[]``, and no inlining of autograd functions."""
    with ExitStack() as stack:
        stack.enter_context(quiet())
        helper = import_module("torch.onnx.symbolic_helper")
        settings = import_module("torch.onnx._internal.torchscript_exporter._globals").GLOBALS
        stack.callback(setattr, settings, "autograd_inlining", settings.autograd_inlining)
        settings.autograd_inlining = False
        stack.enter_context(_lent(torch._C.Node, "__getitem__", helper._node_get))
        yield


def mend_class(module: type[torch.nn.Module]) -> None:
    """Let 0.3's BoundedModule take an argument that torch passes since 2.0 (it has always removed duplicates)."""
    listed: Any = module._named_members

    def _named_members(self, get_members_fn, prefix="", recurse=True, remove_duplicate=True):  # noqa: ANN001
        return listed(self, get_members_fn, prefix, recurse)

    if "remove_duplicate" not in listed.__code__.co_varnames:
        module._named_members = _named_members  # type: ignore[method-assign]


@contextmanager
def _lent(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute for a while, unless the owner has it."""
    missing = not hasattr(owner, name)
    if missing:
        setattr(owner, name, value)
    try:
        yield
    finally:
        if missing:
            delattr(owner, name)


@contextmanager
def _lent_module(name: str, **content: Any) -> Iterator[None]:
    """A module that can be imported for a while, unless one of that name is there."""
    missing = name not in sys.modules
    if missing:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
    try:
        yield
    finally:
        if missing:
            del sys.modules[name]
