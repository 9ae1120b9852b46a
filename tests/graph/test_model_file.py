"""Files that cannot be read: each gives one sentence that names the file."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.graph.models import model, node, random
from verifier.errors import InputError
from verifier.graph import load
from verifier.graph.model_file import read_bytes

NET = model([node("Gemm", "x w b", "y")], {"w": random(4, 3), "b": random(3)})


def refused(path: Path, message: str) -> str:
    """The one sentence that loading gives, which names the file."""
    with pytest.raises(InputError, match=message) as error:
        load(path)
    text = str(error.value)
    assert text.startswith(str(path)) and "\n" not in text and error.value.mend
    return text


def write(folder: Path, content: bytes | onnx.ModelProto, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_plain_and_compressed_files_are_the_same_network(tmp_path: Path):
    data = NET.SerializeToString()
    graphs = [
        load(write(tmp_path, data)),
        load(str(write(tmp_path, gzip.compress(data), "net.onnx.gz"))),
        load(write(tmp_path, gzip.compress(data[:50]) + gzip.compress(data[50:]), "members.onnx.gz")),
    ]
    for graph in graphs:
        assert graph.file is not None and graph.file.sha256 == hashlib.sha256(data).hexdigest()
        assert np.array_equal(graph.nodes[1].constants["weight"], random(4, 3).T)


def test_missing_file(tmp_path: Path):
    refused(tmp_path / "none.onnx", "no such file")


def test_folder(tmp_path: Path):
    refused(tmp_path, "a folder")


def test_a_path_that_no_system_has(tmp_path: Path):
    refused(tmp_path / "a\0b.onnx", "cannot be read")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_empty_file(tmp_path: Path, content: bytes):
    refused(write(tmp_path, content), "empty")


@pytest.mark.parametrize("content", [b"not an ONNX file", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", bytes(100), b"\x0a\x00"])
def test_not_onnx(tmp_path: Path, content: bytes):
    refused(write(tmp_path, content), "not an ONNX file")


def test_truncated_onnx(tmp_path: Path):
    data = NET.SerializeToString()
    for length in range(1, len(data)):
        refused(write(tmp_path, data[:length]), ".")


def test_truncated_and_damaged_gzip(tmp_path: Path):
    data = gzip.compress(random(1000).tobytes())
    refused(write(tmp_path, data[: len(data) // 2], "a.onnx.gz"), "truncated or damaged gzip")
    refused(write(tmp_path, data[:100] + bytes(100) + data[200:], "b.onnx.gz"), "gzip|ONNX")


def test_decompression_stops_at_the_limit(tmp_path: Path):
    path = write(tmp_path, gzip.compress(bytes(10_000_000)))
    with pytest.raises(InputError, match="larger than the 1,000 bytes"):
        read_bytes(path, limit=1000)
    assert len(read_bytes(path)) == 10_000_000


@pytest.mark.parametrize("opset", [6, 99])
def test_operator_sets_that_are_not_known(tmp_path: Path, opset: int):
    net = onnx.ModelProto.FromString(NET.SerializeToString())
    net.opset_import[0].version = opset
    refused(write(tmp_path, net), f"operator set {opset}")


def test_operator_sets_that_are_not_stated_or_stated_twice(tmp_path: Path):
    net = onnx.ModelProto.FromString(NET.SerializeToString())
    net.opset_import.add(domain="ai.onnx", version=14)
    refused(write(tmp_path, net), "several versions")
    del net.opset_import[:]
    refused(write(tmp_path, net), "no version")


def external(folder: Path, location: str, **entries: int) -> Path:
    """A network whose weight (4, 3) lies in another file."""
    net = onnx.ModelProto.FromString(NET.SerializeToString())
    weight = net.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return write(folder, net)


def test_external_data_beside_the_model(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"####" + random(4, 3).tobytes() + b"#")
    graph = load(external(tmp_path, "sub/w.bin", offset=4, length=48))
    assert np.array_equal(graph.nodes[1].constants["weight"], random(4, 3).T)


def test_external_data_outside_the_folder_are_refused(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    secret = write(tmp_path, random(4, 3).tobytes(), "secret.bin")
    (home / "link.bin").symlink_to(secret)
    (home / "linked").symlink_to(tmp_path)
    for location in ("../secret.bin", str(secret), "sub/../../secret.bin", "link.bin", "linked/secret.bin", ""):
        refused(external(home, location), "not a plain path inside the model's folder")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"length": 40}, "do not fit its shape"),
        ({"offset": -4}, "do not fit its shape"),
        ({"offset": 8}, "short: 40 of 48 bytes"),
    ],
)
def test_external_data_that_do_not_fit(tmp_path: Path, entries: dict[str, int], message: str):
    (tmp_path / "w.bin").write_bytes(random(4, 3).tobytes())
    refused(external(tmp_path, "w.bin", **entries), message)


def test_external_data_that_are_missing(tmp_path: Path):
    refused(external(tmp_path, "w.bin"), "cannot be read")
    refused(external(tmp_path, "a\0b"), ".")


def with_weight(**fields: object) -> onnx.ModelProto:
    net = onnx.ModelProto.FromString(NET.SerializeToString())
    net.graph.initializer[0].CopyFrom(TensorProto(name="w", **fields))  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [4, 3], "data_type": 1, "raw_data": bytes(44)}, "as many values as its shape says"),
        ({"dims": [4, 3], "data_type": 1, "raw_data": bytes(45)}, "as many values as its shape says"),
        ({"dims": [4, 3], "data_type": 1, "float_data": [1.0]}, "as many values as its shape says"),
        ({"dims": [4, 3], "data_type": 1}, "as many values as its shape says"),
        ({"dims": [4, -3], "data_type": 1}, "negative size"),
        ({"dims": [50_000, 50_000], "data_type": 1}, "2,500,000,000 entries"),
        ({"dims": [2**62, 2**62], "data_type": 1}, "entries"),
        ({"dims": [4, 3], "data_type": 8, "string_data": [b"a"] * 12}, "real numbers"),
        ({"dims": [4, 3], "data_type": 14, "raw_data": bytes(96)}, "real numbers"),
        ({"dims": [4, 3], "data_type": 0, "raw_data": bytes(48)}, "real numbers"),
        ({"dims": [4, 3], "data_type": 77, "raw_data": bytes(48)}, "real numbers"),
    ],
)
def test_tensors_that_cannot_be(tmp_path: Path, fields: dict[str, object], message: str):
    refused(write(tmp_path, with_weight(**fields)), message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w", "b"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, name: str, value: float):
    constants = {"w": random(4, 3), "b": random(3)}
    constants[name].flat[1] = value
    refused(write(tmp_path, model([node("Gemm", "x w b", "y")], constants)), f"tensor '{name}' holds NaN or infinite")


def test_weights_that_are_not_used_may_be_anything(tmp_path: Path):
    load(write(tmp_path, model([node("Relu", "x", "y")], {"w": [np.nan]})))


def test_sparse_tensors_are_refused(tmp_path: Path):
    net = onnx.ModelProto.FromString(NET.SerializeToString())
    net.graph.sparse_initializer.add(dims=[2, 2])
    refused(write(tmp_path, net), "sparse")
