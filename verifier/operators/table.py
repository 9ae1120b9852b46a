"""All families of operators in one table."""

from verifier.operators import activations, convolution, elementwise, extrema, linear, shape, softmax
from verifier.operators.registry import registry

OPERATORS = registry(
    linear.OPERATORS,
    convolution.OPERATORS,
    elementwise.OPERATORS,
    shape.OPERATORS,
    extrema.OPERATORS,
    activations.OPERATORS,
    softmax.OPERATORS,
)
