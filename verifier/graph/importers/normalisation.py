"""Normalisation with constant statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.graph.builder import Builder
from verifier.graph.calls import Activation, Call
from verifier.graph.faults import Invalid, Unsupported
from verifier.graph.importers.registry import Importer


def _batch_normalization(call: Call, build: Builder) -> Activation:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` per channel, as in inference."""
    if call.attributes.get("training_mode", 0) or not call.attributes.get("spatial", 1):
        raise Unsupported("it normalises with statistics of the batch or of single entries")
    call.refuse_outputs_after(1)
    x = call.activation()
    if x.rank < 2:
        raise Invalid(f"its input of shape {list(x.shape)} has no channels")
    gain, bias, mean, variance = (call.weight(index).reshape(-1) for index in range(1, 5))
    if {v.shape for v in (gain, bias, mean, variance)} != {(x.shape[1],)}:
        raise Invalid(f"its statistics do not have one entry for each of the {x.shape[1]} channels")
    variance = variance + float(call.attributes.get("epsilon", np.float32(1e-5)))
    if variance.min() <= 0:
        raise Invalid(f"its variance '{call.input_names[4]}' is not positive", "mend the weights")
    factor = gain / np.sqrt(variance)
    channels = (-1, *(1,) * (x.rank - 2))
    return build.scale(x, factor.reshape(channels), (bias - mean * factor).reshape(channels))


IMPORTERS: Mapping[str, Importer] = {"BatchNormalization": _batch_normalization}
