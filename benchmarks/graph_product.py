"""How does LightGCN's product with the graph compare with torch's sparse matrices?

    python benchmarks/graph_product.py

One product of the symmetrically normalised graph with the vectors of all nodes, on generated graphs of the sizes of
MovieLens-100k and of the KDD'21 split of CiteULike, items drawn by a power law. A step of LightGCN takes 2 L of them.
Medians, in one run, same threads; on a GPU with --device cuda, where kdrec takes torch's form.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kdrec.models.graph import Graph


def generated(num_users: int, num_items: int, pairs: int) -> tuple[Tensor, Tensor]:
    """Return offsets (num_users + 1,) and items of different pairs."""
    chance = np.random.default_rng(0)
    popularity = 1 / (10 + np.arange(num_items))
    drawn = chance.choice(num_items, 2 * pairs, p=popularity / popularity.sum())
    keys = np.unique(chance.integers(0, num_users, 2 * pairs) * num_items + drawn)
    keys = np.sort(chance.permutation(keys)[:pairs])
    counts = np.bincount(keys // num_items, minlength=num_users)
    return torch.from_numpy(np.append(0, counts.cumsum())), torch.from_numpy(keys % num_items)


def median_milliseconds(work: Callable[[], Tensor], repeats: int) -> float:
    """Time a piece of work."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[2:])


def main() -> None:
    """Compare the forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21, help="repetitions of each form; the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; one product")
    print("graph                     width       COO       CSR     kdrec   CSR / kdrec    error")
    for users, items, pairs in ((943, 1682, 98114), (5220, 25182, 115142)):
        offsets, touched = (part.to(options.device) for part in generated(users, items, pairs))
        graph = Graph(offsets, touched, items, torch.float32)
        size = (graph.num_nodes, graph.num_nodes)
        csr = torch.sparse_csr_tensor(graph.offsets, graph.neighbours, graph.weights, size, check_invariants=True)
        coo = csr.to_sparse_coo().coalesce()
        for width in (8, 64, 200):
            vectors = torch.randn(graph.num_nodes, width, device=options.device)
            forms = (partial(torch.mm, coo), partial(torch.mm, csr), graph.product)
            times = [median_milliseconds(partial(form, vectors), options.repeats) for form in forms]
            error = (forms[1](vectors) - forms[2](vectors)).abs().max().item()
            print(
                f"{users:>5} x {items:>6}, {pairs:>7} {width:>6}"
                + "".join(f"{value:>7.2f} ms" for value in times)
                + f" {times[1] / times[2]:>10.1f} x {error:>9.0e}"
            )


if __name__ == "__main__":
    main()
