"""All importers in one table."""

from verifier.graph.importers import (
    activations,
    arithmetic,
    convolution,
    layout,
    linear,
    normalisation,
    pooling,
    reductions,
    selection,
)
from verifier.graph.importers.registry import registry

IMPORTERS = registry(
    linear.IMPORTERS,
    convolution.IMPORTERS,
    pooling.IMPORTERS,
    normalisation.IMPORTERS,
    arithmetic.IMPORTERS,
    activations.IMPORTERS,
    reductions.IMPORTERS,
    layout.IMPORTERS,
    selection.IMPORTERS,
)
