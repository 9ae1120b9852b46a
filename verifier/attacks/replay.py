"""Replay of candidate counterexamples on the original file: the only place that runs onnxruntime."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch

from verifier.attacks.rounding import Comparison, plainly_same
from verifier.errors import InputError
from verifier.graph.ir import Graph
from verifier.operators import evaluate, place
from verifier.specs.property import Polytope, Property
from verifier.specs.region import Region
from verifier.verdict import Counterexample

_GZIP_MAGIC = b"\x1f\x8b"
_NOTHING = 4  # fatal errors only: what fails is raised as well, and need not be printed
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_LONGEST_REASON = 300  # letters
_MORE_POINTS = 4


class Replayer:
    """An onnxruntime session on the file that a graph was read from.

    It runs on the CPU with one thread and refuses a file that has changed since it was read.

    Args:
        graph: as read, not placed on a device.

    Raises:
        InputError: the graph was not read from a file, the file is gone or has changed, or onnxruntime cannot load it.
    """

    def __init__(self, graph: Graph):
        if graph.file is None:
            raise InputError("network", "it was not read from a file", "save it as ONNX to have results replayed")
        self.graph = graph
        self.path = graph.file.path
        self._model = self._read(graph.file.sha256)
        self._session = self._open(self._model)
        node = self._session.get_inputs()[0]
        if node.type not in _INPUT_TYPES:
            raise InputError(str(self.path), f"its input is a {node.type}", "give a network with floating-point input")
        self._input, self._dtype = node.name, _INPUT_TYPES[node.type]
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = graph.output if graph.output in outputs else outputs[0]

    def run(self, x: np.ndarray) -> np.ndarray:
        """Output (*Y), as onnxruntime returns it, for one input x (*X), which is rounded to the network's type.

        Raises:
            InputError: onnxruntime cannot run the network.
        """
        (y,) = self._values(self._session, [self._output], x)
        if y.size != prod(self.graph.output_shape):
            what = f"onnxruntime's output has shape {list(y.shape)}, its own is {list(self.graph.output_shape)}"
            raise InputError(str(self.path), what, "check the model")
        return y.reshape(self.graph.output_shape)

    def representable(self, x: np.ndarray) -> np.ndarray:
        """x (*X) float64 as the network sees it: rounded to its input type, float64 again."""
        return self._feed(x).astype(np.float64)

    def intermediates(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Value of every tensor of the file for one input x (*X), by its name in the file.

        Raises:
            InputError: onnxruntime cannot run the network.
        """
        import onnx

        model = onnx.ModelProto.FromString(self._model)
        known = {output.name for output in model.graph.output}
        names = [name for node in model.graph.node for name in node.output if name and name not in known]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = self._open(model.SerializeToString())
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, self._values(session, names, x), strict=True))

    @cached_property
    def exact(self) -> Graph:
        """The graph in float64 on the CPU."""
        return place(self.graph, torch.float64, "cpu")

    def _values(self, session: Any, names: Sequence[str], x: np.ndarray) -> list[np.ndarray]:
        try:
            return [np.asarray(value) for value in session.run(names, {self._input: self._feed(x)})]
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise InputError(
                str(self.path), f"onnxruntime cannot run it ({_reason(error)})", "check the model"
            ) from error

    def _feed(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x, dtype=self._dtype).reshape(self.graph.input_shape)

    def _read(self, sha256: str) -> bytes:
        try:
            model = self.path.read_bytes()
            model = gzip.decompress(model) if model.startswith(_GZIP_MAGIC) else model
        except (OSError, EOFError) as error:
            raise InputError(str(self.path), f"cannot be read again ({error})", "keep the file in its place") from error
        if hashlib.sha256(model).hexdigest() != sha256:
            raise InputError(str(self.path), "the file changed while it was being verified", "run again")
        return model

    def _open(self, model: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _NOTHING
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # A model that comes as bytes has no folder of its own; its external data lies beside the file.
        folder = str(self.path.resolve().parent)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        try:
            return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise InputError(
                str(self.path), f"onnxruntime cannot load it ({_reason(error)})", "check the model"
            ) from error


def replay(replayer: Replayer, prop: Property, x: np.ndarray, index: int = 0) -> Counterexample | None:
    """The counterexample next to a candidate input, at zero tolerance, or None.

    The input is moved to the nearest point of the region that can be handed to the network as it is, and onnxruntime's
    output must lie in an unsafe polytope as written. Where a coordinate has no float32 value (the specification fixes
    it to such a number), onnxruntime cannot run at the point itself; then the output of the exact point in float64
    must lie in the same polytope as well. onnxruntime has to return the same output twice, and one that our own
    float64 value explains: some of its kernels read memory that nothing was written to.

    Args:
        replayer: session on the original file.
        prop: the property; its region has batch size 1.
        x: (*X) float64.
        index: number of the property in its query, recorded in the result.
    """
    witness = prop.region.witness(np.asarray(x, dtype=np.float64))
    if witness is None:
        return None
    output = replayer.run(witness)
    broken = next(_broken(prop.unsafe, output), None)
    if broken is not None and not np.array_equal(replayer.representable(witness), witness):
        exact = evaluate(replayer.exact, torch.from_numpy(witness).unsqueeze(0)).squeeze(0).numpy()
        also = set(_broken(prop.unsafe, exact))
        broken = next((polytope for polytope in _broken(prop.unsafe, output) if polytope in also), None)
    if broken is None or not _confirmed(replayer, prop.region, witness, output):
        return None
    return Counterexample(witness, output, index, broken)


def _confirmed(replayer: Replayer, region: Region, x: np.ndarray, output: np.ndarray) -> bool:
    """Whether onnxruntime's output (*Y) at x (*X) can be had again and is what the network computes, up to rounding."""
    if not np.array_equal(replayer.run(x), output):
        return False
    point = torch.from_numpy(replayer.representable(x)).unsqueeze(0)
    if plainly_same(output, evaluate(replayer.exact, point).squeeze(0).detach().numpy()):
        return True
    # How much float32 loses cannot be read off one point, where errors may cancel.
    points = torch.cat([point, sample_points(replayer, region, _MORE_POINTS, seed=0)])
    return Comparison(replayer.graph, replayer.exact, points).judge(replayer.graph.output, output[None]).same


def sample_points(replayer: Replayer, region: Region, count: int, seed: int) -> torch.Tensor:
    """The centre, a corner and random points of a region's first entry: (count, *X) float64."""
    generator = torch.Generator().manual_seed(seed)
    region = region.select(torch.zeros(1, dtype=torch.int64)).to(torch.float64, "cpu")
    box = region.enclosing_box()
    fixed = torch.stack([(box.lower + box.upper) / 2, box.upper])
    points = torch.cat([region.project(fixed), region.sample(count, generator)])[:count, 0]
    return torch.stack([torch.from_numpy(replayer.representable(x.numpy())) for x in points])


def _reason(error: Exception) -> str:
    """The innermost of the errors in the first line of onnxruntime's message."""
    line = (str(error).splitlines() or [type(error).__name__])[0].rpartition("[ONNXRuntimeError] : ")[2].strip()
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


def _broken(unsafe: tuple[Polytope, ...], y: np.ndarray) -> Iterator[int]:
    """Numbers of the polytopes that hold output y; an output that is not finite proves nothing."""
    if np.isfinite(y).all():
        y = y.astype(np.float64).reshape(-1)
        yield from (number for number, polytope in enumerate(unsafe) if polytope.contains(y))
