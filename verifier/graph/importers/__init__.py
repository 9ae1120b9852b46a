"""Importers: one family of ONNX operators a file, one registry.

To read a new ONNX operator, write a function ``(call, build) -> value or values`` in the file of its family that emits
nodes of the graph's vocabulary, name it in that file's `IMPORTERS`, and add an example to ``tests/graph``.
"""
