"""Arithmetic of products: what training may use, and what counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from verifier.graph.ir import Graph
from verifier.training.bounded import BoundedModule


@contextmanager
def products(tf32: bool) -> Iterator[None]:
    """Products of float32 numbers on GPUs with the 10 bits of TF32, or with all of theirs; afterwards as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class LowPrecision(BoundedModule):
    """Logits, clean and attacked, in bfloat16. Bounds stay as they are: its 8 bits are less than the width of a box."""

    _low = False  # not while the graph is checked against the module

    def __init__(self, module: torch.nn.Module, example: Tensor) -> None:
        super().__init__(module, example)
        self._low = True

    def clean(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._low):
            return super().clean(x).float()

    def logits(self, x: Tensor, graph: Graph | None = None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._low):
            return super().logits(x, graph).float()
