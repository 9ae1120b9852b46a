"""Reading an ONNX file: bytes, their hash, and the parsed model."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from verifier.errors import InputError
from verifier.graph.faults import Invalid
from verifier.graph.functions import inlined
from verifier.graph.ir import ModelFile

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_CONTAINER = 16 + zlib.MAX_WBITS
#: protobuf cannot hold more, so neither can an ONNX file
MAX_BYTES = 2**31 - 1
_CHUNK = 2**20
#: operators are read by the rules of these versions of the ONNX operator set
OPSETS = range(7, 26)


@dataclass(frozen=True)
class Model:
    """A parsed file.

    Args:
        file: its path and hash.
        graph: the main graph.
        opset: version of the ai.onnx operators.
    """

    file: ModelFile
    graph: onnx.GraphProto
    opset: int

    @property
    def folder(self) -> Path:
        return self.file.path.parent


def read_model(path: str | Path) -> Model:
    """Parse an ``.onnx`` or ``.onnx.gz`` file; compression is recognised by content.

    Raises:
        InputError: the file is missing, truncated, too large or not ONNX, or its operator set is not known here.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise InputError(str(path), "not an ONNX file, or a truncated one", "copy or export it again") from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise InputError(str(path), "not an ONNX file: it holds no network", "give a network exported to ONNX")
    try:
        proto = inlined(proto)
    except Invalid as error:
        raise InputError(str(path), error.what, error.mend) from error
    return Model(ModelFile(path, hashlib.sha256(data).hexdigest()), proto.graph, _opset(proto, path))


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Content of a file, decompressed where it is gzip.

    Args:
        path: the file.
        limit: the most bytes that it may have, decompressed.
    """
    if path.is_dir():
        raise InputError(str(path), "a folder, not a file", "give the path of an ONNX file")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError as error:
        raise InputError(str(path), "no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(str(path), f"cannot be read ({error})", "check the path and its permissions") from error
    if data.startswith(_GZIP_MAGIC):
        data = _decompressed(data, limit, path)
    if len(data) > limit:
        raise InputError(str(path), f"larger than the {limit:,} bytes that an ONNX file can have", "give a smaller one")
    if not data:
        raise InputError(str(path), "the file is empty", "copy or export it again")
    return data


def _decompressed(data: bytes, limit: int, path: Path) -> bytes:
    """All members of a gzip file; stops just above the limit, however much more would follow."""
    parts, size = [], 0
    while data:
        stream = zlib.decompressobj(_GZIP_CONTAINER)
        while data and not stream.eof:
            try:
                part = stream.decompress(data, min(_CHUNK, limit + 1 - size))
            except zlib.error as error:
                raise InputError(str(path), f"damaged gzip data ({error})", "copy it again") from error
            data = stream.unconsumed_tail
            parts.append(part)
            size += len(part)
            if size > limit:
                return b"".join(parts)
        if not stream.eof:
            raise InputError(str(path), "truncated gzip data", "copy it again")
        data = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _opset(proto: onnx.ModelProto, path: Path) -> int:
    versions = {entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")}
    if len(versions) != 1:
        what = "states no version" if not versions else "states several versions"
        raise InputError(str(path), f"{what} of the ai.onnx operator set", "export the network again")
    (version,) = versions
    if version not in OPSETS:
        raise InputError(
            str(path),
            f"uses operator set {version}, and {OPSETS[0]} to {OPSETS[-1]} are supported",
            "convert it with onnx.version_converter",
        )
    return version
