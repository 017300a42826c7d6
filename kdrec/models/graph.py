"""The graph of who touched what, and the product with it that graph models are made of."""

import torch
from torch import Tensor
from torch.nn import functional


class Graph:
    """Users and items as the nodes of one graph, each pair an edge in both directions.

    The edge between a node of degree a and one of degree b weighs 1 / sqrt(a * b), so the matrix A is symmetric.

    Args:
        offsets: (num_users + 1,); the items of user u stand at ``offsets[u]`` up to ``offsets[u + 1]``.
        items: (pairs,) on the same device.
        num_items: How many there are.
        dtype: Of the vectors that will be multiplied.
    """

    def __init__(self, offsets: Tensor, items: Tensor, num_items: int, dtype: torch.dtype) -> None:
        counts, degrees = offsets.diff(), torch.bincount(items, minlength=num_items)
        users = torch.repeat_interleave(torch.arange(len(counts), device=items.device), counts)
        by_item = torch.argsort(items, stable=True)
        products = (counts[users] * degrees[items]).to(
            torch.promote_types(dtype, torch.float32)
        )  # too large for halves
        weights = products.rsqrt().to(dtype)
        self.num_nodes = len(counts) + num_items
        # 32 bits: half the memory traffic, and on a CPU up to twice as fast
        self.offsets = torch.cat((offsets, offsets[-1] + degrees.cumsum(0))).int()
        self.neighbours = torch.cat((items + len(counts), users[by_item])).int()
        self.weights = torch.cat((weights, weights[by_item]))

    def smooth(self, users: Tensor, items: Tensor, num_layers: int) -> tuple[Tensor, ...]:
        """Return the mean of A^l (users, items) over l = 0..num_layers, without a gradient.

        Args:
            users: (num_users, d).
            items: (num_items, d).
            num_layers: 0 returns copies.
        """
        layer = total = torch.cat((users, items))
        for _ in range(num_layers):
            layer = self.product(layer)
            total.add_(layer)
        return total.div_(num_layers + 1).split((len(users), len(items)))

    def product(self, vectors: Tensor) -> Tensor:
        """Return A times the vectors of all nodes, users before items: (nodes, d) -> (nodes, d).

        torch's product with a sparse matrix is the fastest form on a GPU; on a CPU the sum of a bag of rows takes about
        a third of its time where vectors are wide (benchmarks/graph_product.py).
        """
        if not vectors.is_cuda:
            return functional.embedding_bag(
                self.neighbours, vectors, self.offsets, mode="sum", per_sample_weights=self.weights,
                include_last_offset=True,
            )  # fmt: skip
        matrix = torch.sparse_csr_tensor(self.offsets, self.neighbours, self.weights, (self.num_nodes, self.num_nodes))
        with torch.autocast("cuda", enabled=False):
            return matrix @ vectors
