"""The weights in an ONNX file, and which node reads which: all that is needed of it, without the package onnx."""

from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from clinprompt.errors import InputCorrupt

Array = NDArray[np.float32]

_FLOAT = 1  # TensorProto.DataType
# The fields of onnx.proto3 that are read, by message: name, number, type; a "*" is a list of it.
_FIELDS = {
    "Model": [("graph", 7, "Graph")],
    "Graph": [("node", 1, "*Node"), ("initializer", 5, "*Tensor")],
    "Node": [("input", 1, "*string"), ("name", 3, "string")],
    "Tensor": [("dims", 1, "*int64"), ("data_type", 2, "int32"), ("name", 8, "string"), ("raw_data", 9, "bytes")],
}


class OnnxGraph:
    """The initialisers of an ONNX file and the inputs of its nodes.

    Args:
        data: the file's bytes.
        where: the file, for messages.

    Raises:
        InputCorrupt: it is no ONNX file.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        model = _message_class()()
        try:
            model.ParseFromString(data)
        except DecodeError:
            raise InputCorrupt(f"{where} is no ONNX file.") from None
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inputs = {node.name: list(node.input) for node in model.graph.node}

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """The initialiser of a name.

        Raises:
            InputCorrupt: there is none, or it has another shape or type.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise InputCorrupt(f"{self.where} has no initialiser {name!r}; it is another model's, or another export.")
        found = tuple(tensor.dims)
        if found != shape or tensor.data_type != _FLOAT or len(tensor.raw_data) != 4 * int(np.prod(shape)):
            raise InputCorrupt(f"{self.where}: expected {name!r} as float32 {list(shape)}, found {list(found)}.")
        return np.frombuffer(tensor.raw_data, "<f4").reshape(shape)

    def weight_of(self, node: str, shape: tuple[int, ...]) -> Array:
        """The initialiser that a node reads, whatever its own name.

        Raises:
            InputCorrupt: there is no such node, it reads none or several, or the shape is another.
        """
        if node not in self._inputs:
            raise InputCorrupt(
                f"{self.where} has no node {node!r}, by which its weights are told apart; it is another model's, or "
                "another export."
            )
        names = [name for name in self._inputs[node] if name in self._tensors]
        if len(names) != 1:
            raise InputCorrupt(f"{self.where}: expected one weight at the node {node!r}, found {len(names)}.")
        return self.tensor(names[0], shape)


@cache
def _message_class() -> Any:
    """The class of an ONNX model's message; fields that are not read are skipped by their wire format."""
    kinds = descriptor_pb2.FieldDescriptorProto
    types = {"string": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES, "int64": kinds.TYPE_INT64}
    types["int32"] = kinds.TYPE_INT32
    file = descriptor_pb2.FileDescriptorProto(name="weights.proto", package="weights", syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            of = kind.removeprefix("*")
            field.type = types.get(of, kinds.TYPE_MESSAGE)
            if of not in types:
                field.type_name = f".weights.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("weights.Model"))
