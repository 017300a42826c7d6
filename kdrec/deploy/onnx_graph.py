"""ONNX graphs in the making: nodes, constants, tables of few bits in one file beside them, and the top k."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from kdrec.deploy.compact import Table

_OPSET, _IR_VERSION = 18, 9  # of 2023, so that runtimes of many years read them
_ALIGNMENT = 64  # bytes


class TableFile:
    """The content of ``tables.bin``, and the tensors that stand in it.

    Args:
        tables: By name.
    """

    name = "tables.bin"

    def __init__(self, tables: dict[str, Table]) -> None:
        self.tables = tables
        self.content = bytearray()
        self.tensors: dict[str, TensorProto] = {}
        for name, table in tables.items():
            for suffix, part in table.parts.items():
                self._add(name + suffix, part.numpy())

    def _add(self, name: str, array: np.ndarray) -> None:
        self.content.extend(bytes(-len(self.content) % _ALIGNMENT))
        tensor = numpy_helper.from_array(array, name)
        place = {"location": self.name, "offset": len(self.content), "length": array.nbytes}
        self.content.extend(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self.tensors[name] = tensor


class Graph:
    """Nodes in the making.

    Args:
        tables: That its nodes may use.
        prefix: Of the names of its nodes, if it becomes the body of another graph's node.
    """

    def __init__(self, tables: TableFile | None = None, prefix: str = "") -> None:
        self.tables = tables
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node; returns the name of its first output."""
        names = list(outputs) or [f"{self.prefix}{operator.lower()}{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]

    def constant(self, value: Any, dtype: Any) -> str:
        """Add a constant of a NumPy type; returns its name."""
        array = np.array(value, dtype)
        name = f"{self.prefix}constant{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def table(self, name: str, rows: str | None = None) -> str:
        """Add a table as floats, or those of its rows that an input or node names; returns the name."""
        assert self.tables
        table, parts = self.tables.tables[name], {}
        for suffix in table.parts:
            parts[suffix] = name + suffix
            self.constants[name + suffix] = self.tables.tensors[name + suffix]
            if rows is not None:
                parts[suffix] = self.add("Gather", parts[suffix], rows)
        if table.scales is None:
            return self.add("Cast", parts[""], to=TensorProto.FLOAT)
        codes = parts[".codes"]
        if table.numbers.dtype == torch.uint8:
            halves = (
                self.add("BitwiseAnd", codes, self.constant(15, np.uint8)),
                self.add("BitShift", codes, self.constant(4, np.uint8), direction="RIGHT"),
            )
            pairs = [self.add("Unsqueeze", half, self.constant([2], np.int64)) for half in halves]
            codes = self.add("Flatten", self.add("Concat", *pairs, axis=2), axis=1)
            ends = (self.constant([end], np.int64) for end in (0, table.width, 1))
            codes = self.add("Slice", codes, *ends)
        numbers = self.add("Cast", codes, to=TensorProto.FLOAT)
        if table.numbers.dtype == torch.uint8:
            numbers = self.add("Sub", numbers, self.constant(8, np.float32))
        return self.add("Mul", numbers, self.add("Unsqueeze", parts[".scales"], self.constant([1], np.int64)))

    def best(self, scores: str, hidden: str) -> None:
        """End in the k best items of each row that are not hidden."""
        zero, one = self.constant(0, np.int64), self.constant([1], np.int64)
        padding = self.add("Less", hidden, zero)
        penalties = self.add("Where", padding, self.constant(0, np.float32), self.constant(-np.inf, np.float32))
        places = self.add("Max", hidden, zero)
        left = self.add("ScatterElements", scores, places, penalties, axis=1, reduction="add")
        self.add("TopK", left, self.add("Reshape", "k", one), outputs=("scores", "best"), axis=1)
        none = self.add("IsInf", "scores", detect_positive=0)
        self.add("Where", none, self.constant(-1, np.int64), "best", outputs=["items"])

    def model(self, **inputs: Sequence[str]) -> bytes:
        """Return the file, given the shape of each input."""
        ints, floats, best = TensorProto.INT64, TensorProto.FLOAT, ("batch", "k")
        graph = helper.make_graph(
            self.nodes, "kdrec",
            [helper.make_tensor_value_info(name, ints, shape) for name, shape in {**inputs, "k": ()}.items()],
            [helper.make_tensor_value_info("items", ints, best), helper.make_tensor_value_info("scores", floats, best)],
            list(self.constants.values()),
        )  # fmt: skip
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="kdrec"
        )
        return made.SerializeToString()
