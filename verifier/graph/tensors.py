"""Tensors stored in an ONNX file, or in files beside it."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from verifier.graph.faults import Invalid, require_size

_ENTRIES_NOT_NUMBERS = (TensorProto.UNDEFINED, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def to_array(tensor: TensorProto, folder: Path) -> np.ndarray:
    """The tensor's values in its own type.

    Args:
        tensor: as it stands in the file.
        folder: the model's folder, the only one that external data is read from.

    Raises:
        Invalid: it is too large, not of numbers, or its data are missing, short or outside the folder.
    """
    name = f"tensor '{tensor.name}'"
    require_size(tensor.dims, name)
    if tensor.data_type in _ENTRIES_NOT_NUMBERS or tensor.data_type not in TensorProto.DataType.values():
        raise Invalid(f"{name} does not hold real numbers (its type is {tensor.data_type})")
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _with_external_data(tensor, folder, name)
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise Invalid(f"{name} of shape {list(tensor.dims)} does not hold as many values as its shape says") from error


def _with_external_data(tensor: TensorProto, folder: Path, name: str) -> TensorProto:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(entries.get("location", ""), folder, name)
    length = prod(tensor.dims) * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    try:
        offset, stated = int(entries.get("offset", 0)), int(entries.get("length", length))
        if offset < 0 or stated != length:
            raise ValueError(f"offset {offset}, length {stated}")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except ValueError as error:
        raise Invalid(f"the external data of {name} do not fit its shape ({error})") from error
    except OSError as error:
        raise Invalid(
            f"the external data of {name} cannot be read ({error.strerror})", "put the data file beside the model"
        ) from error
    if len(data) != length:
        raise Invalid(f"the external data of {name} are short: {len(data)} of {length} bytes", "copy the file again")
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=data)


def _inside(location: str, folder: Path, name: str) -> Path:
    """The path of a data file; links are refused with paths that leave the folder, since they can lead out of it."""
    home = folder.resolve()
    path = home / location
    relative = Path(location)
    if not location or relative.is_absolute() or ".." in relative.parts or path.resolve() != path:
        raise Invalid(
            f"the external data of {name} are in {location!r}, which is not a plain path inside the model's folder",
            "put the data file beside the model",
        )
    return path
