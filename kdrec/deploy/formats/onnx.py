"""ONNX graphs with the top-k inside: ``users.onnx`` for known users, ``strangers.onnx`` for who likes some items.

Both read their tables from ``tables.bin``, so no number is stored twice. Tables are stored in few bits. A user's row is
dequantised when it is asked for. The item table is dequantised by onnxruntime once, when it loads the graph (constant
folding), since one product with the float table takes a third of the time of dequantising it for each request.

`users.onnx` takes users (B,) int64, their seen items (B, S) int64, filled up with -1, and k, int64; `strangers.onnx`
takes liked (B, L) int64, each item once a row, filled up with -1, and k. Both give items (B, k) int64, none of them
seen or liked, and scores (B, k) float32, best first; item -1 and score -inf where fewer are left.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from kdrec.deploy.compact import Compact
from kdrec.deploy.fold_in import everyone
from kdrec.deploy.onnx_graph import Graph, TableFile
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.neumf import NeuMF

QUANTIZES = True
USERS, STRANGERS = "users.onnx", "strangers.onnx"

_STEPS = 32  # of conjugate gradients; 16 reach the precision of floats for vectors of width 20 to 200


def build(model: Compact, k: int) -> dict[str, bytes]:
    """As `Format.build`; the graphs take ``k`` as an input."""
    tables = TableFile(model.tables)
    graph = Graph(tables)
    graph.best(_scores(graph, model.recommender), "seen")
    files = {USERS: graph.model(users=("batch",), seen=("batch", "seen"))}
    if isinstance(model.recommender, BPR):
        graph = Graph(tables)
        items = graph.table("items.weight")
        graph.best(graph.add("Gemm", _strangers(graph, model.recommender, items), items, transB=1), "liked")
        files[STRANGERS] = graph.model(liked=("batch", "liked"))
    return {**files, TableFile.name: bytes(tables.content)}


def _scores(graph: Graph, recommender: Recommender) -> str:
    """Score the catalogue for ``users``: (B, num_items)."""
    if isinstance(recommender, BPR):
        return graph.add("Gemm", graph.table("users.weight", "users"), graph.table("items.weight"), transB=1)
    if not isinstance(recommender, NCF):
        raise InputError(
            f"There is no ONNX graph for a {type(recommender).__name__}: it scores by no dot products, and is neither "
            f"NCF nor NeuMF; take --format torch_export, or safetensors, which holds any model."
        )
    width = recommender.embedding_dim
    first = graph.table("first.weight")
    starts, ends, axis = (graph.constant([place], np.int64) for place in (0, width, 1))
    of_user = graph.add("Slice", first, starts, ends, axis)
    of_item = graph.add("Slice", first, ends, graph.constant([2 * width], np.int64), axis)
    users = graph.add("Gemm", graph.table("users.weight", "users"), of_user, graph.table("first.bias"), transB=1)
    items = graph.add("Gemm", graph.table("items.weight"), of_item, transB=1)  # constant, so computed when loaded
    body = Graph(prefix="one_")  # of one user, or all users' activations would stand in memory together
    hidden = body.add("Add", "user", items)
    for index, layer in enumerate(recommender.rest):
        if isinstance(layer, nn.Linear):
            name = f"rest.{index}"
            hidden = body.add(
                "Gemm", hidden, graph.table(f"{name}.weight"), graph.table(f"{name}.bias"), transB=1,
                outputs=[f"hidden{index}"],
            )  # fmt: skip
        elif isinstance(layer, nn.ReLU):
            hidden = body.add("Relu", hidden, outputs=[f"hidden{index}"])
    body.add("Reshape", hidden, graph.constant([-1], np.int64), outputs=["of_one"])
    scan = helper.make_graph(
        body.nodes, "one_user",
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, (recommender.first.out_features,))],
        [helper.make_tensor_value_info("of_one", TensorProto.FLOAT, (recommender.num_items,))],
    )  # fmt: skip
    scores = graph.add("Scan", users, num_scan_inputs=1, body=scan)
    if not isinstance(recommender, NeuMF):
        return scores
    weighed = graph.add("Mul", graph.table("gmf_users.weight", "users"), graph.table("gmf.weight"))
    return graph.add("Add", scores, graph.add("Gemm", weighed, graph.table("gmf_items.weight"), transB=1))


def _strangers(graph: Graph, recommender: BPR, items: str) -> str:
    """Fold in who likes ``liked``, as `kdrec.deploy.fold_in.fold_in` does: (B, d).

    With N = A + V'V / n and A = C C', where A is the same for everybody, the rows W = V inv(C') turn the normal
    equations into (1 + W'W / n) y = W'1 / n and u = inv(C') y. These are so well conditioned that a few steps of
    conjugate gradients solve them.

    References:
        Hestenes and Stiefel, Methods of Conjugate Gradients for Solving Linear Systems, 1952, sec. 3.
    """
    lower = torch.linalg.cholesky(everyone(recommender.encode_catalogue()))
    whitening = torch.linalg.inv(lower).T
    white = graph.constant(whitening.float().numpy(), np.float32)
    zero, last, middle = graph.constant(0, np.int64), graph.constant([2], np.int64), graph.constant([1], np.int64)
    given = graph.add("Cast", graph.add("GreaterOrEqual", "liked", zero), to=TensorProto.FLOAT)
    given = graph.add("Unsqueeze", given, last)
    vectors = graph.add("MatMul", graph.add("Gather", items, graph.add("Max", "liked", zero)), white)
    vectors = graph.add("Mul", vectors, given)
    count = graph.add("Max", graph.add("ReduceSum", given, middle), graph.constant(1, np.float32))
    transposed = graph.add("Transpose", vectors, perm=[0, 2, 1])
    square = graph.add("Div", graph.add("MatMul", transposed, vectors), count)
    right = graph.add("Transpose", graph.add("Div", graph.add("ReduceSum", vectors, middle), count), perm=[0, 2, 1])

    step = Graph(prefix="step_")

    def dot(one: str, other: str) -> str:
        return step.add("ReduceSum", step.add("Mul", one, other), middle)

    tiny = graph.constant(1e-30, np.float32)
    image = step.add("Add", "direction", step.add("MatMul", square, "direction"))
    length = dot("residual", "residual")
    far = step.add("Div", length, step.add("Max", dot("direction", image), tiny))
    step.add("Add", "solution", step.add("Mul", far, "direction"), outputs=["solution_out"])
    step.add("Sub", "residual", step.add("Mul", far, image), outputs=["residual_out"])
    turn = step.add("Div", dot("residual_out", "residual_out"), step.add("Max", length, tiny))
    step.add("Add", "residual_out", step.add("Mul", turn, "direction"), outputs=["direction_out"])
    step.add("Identity", "go_on", outputs=["go_on_out"])
    states = ("solution", "residual", "direction")
    shape = ("batch", recommender.embedding_dim, 1)
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        step.nodes, "step",
        [info("number", TensorProto.INT64, ()), info("go_on", TensorProto.BOOL, ()),
         *(info(name, TensorProto.FLOAT, shape) for name in states)],
        [info("go_on_out", TensorProto.BOOL, ()), *(info(f"{name}_out", TensorProto.FLOAT, shape) for name in states)],
    )  # fmt: skip
    nothing = graph.add("Sub", right, right)
    steps = graph.constant(_STEPS, np.int64)
    solved = graph.add("Loop", steps, "", nothing, right, right, outputs=("solved", "rest", "way"), body=body)
    return graph.add("MatMul", graph.add("Squeeze", solved, last), graph.add("Transpose", white, perm=[1, 0]))


def answers(folder: Path, users: Tensor, seen: Tensor, k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """As `Format.answers`."""
    found = {"users": _run(folder / USERS, users=users.numpy(), seen=seen.numpy(), k=np.array(k))}
    if (folder / STRANGERS).is_file():
        found["strangers"] = _run(folder / STRANGERS, liked=seen.numpy(), k=np.array(k))
    return found


def _run(path: Path, **inputs: np.ndarray) -> tuple[Tensor, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    items, scores = session.run(["items", "scores"], inputs)
    return torch.from_numpy(items), torch.from_numpy(scores)
