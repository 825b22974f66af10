"""ONNX files written byte by byte, so that reading them is held against the format and not against itself."""

from collections.abc import Mapping, Sequence

import numpy as np


def model(nodes: Sequence[tuple[str, Sequence[str]]], tensors: Mapping[str, np.ndarray]) -> bytes:
    """A model of nodes (name, inputs) and initialisers, with fields among them that a reader of weights skips."""
    graph = b"".join(_node(name, inputs) for name, inputs in nodes)
    graph += _field(2, b"main_graph")
    graph += b"".join(_tensor(name, values) for name, values in tensors.items())
    return _number(1, 7) + _field(2, b"pytorch") + _field(7, graph)


def output(name: str) -> bytes:
    """What makes a tensor of a model another output of it, when it is appended to the file: messages merge."""
    tensor_type = _field(1, _number(1, 1))
    return _field(7, _field(12, _field(1, name.encode()) + _field(2, tensor_type)))


def _node(name: str, inputs: Sequence[str]) -> bytes:
    fields = b"".join(_field(1, text.encode()) for text in inputs)
    return _field(1, fields + _field(2, f"{name}_output_0".encode()) + _field(3, name.encode()) + _field(4, b"MatMul"))


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = _field(1, b"".join(_varint(n) for n in values.shape))
    return _field(5, dims + _number(2, 1) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes()))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
