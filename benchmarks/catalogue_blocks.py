"""How fast does a perceptron over pairs rank the whole catalogue?

    python benchmarks/catalogue_blocks.py

Scores of all items for a batch of users, by NCF, in three forms: the vectors of every pair concatenated; the item half
of the first layer computed once, all users at once; and kdrec's, the same in blocks that stay in a core's cache. Sizes
are those of MovieLens-100k and CiteULike. Medians, in one run, same threads; on a GPU with --device cuda.
"""

import argparse
from functools import partial

import torch
from graph_product import median_milliseconds
from torch import Tensor
from torch.nn import functional

from kdrec.models.ncf import NCF


def of_pairs(model: NCF, users: Tensor) -> Tensor:
    """Concatenate the vectors of every pair of a user, one user after the other."""
    items = model.items.weight
    rows = []
    for user in users:
        pairs = torch.cat((model.users(user).expand(len(items), -1), items), dim=1)
        rows.append(model.rest(model.first(pairs)).squeeze(-1))
    return torch.stack(rows)


def of_halves(model: NCF, users: Tensor) -> Tensor:
    """Add the halves of the first layer, all users at once."""
    mine, theirs = model.first.weight.chunk(2, dim=1)
    halves = functional.linear(model.users(users), mine, model.first.bias)
    return model.rest(halves.unsqueeze(1) + functional.linear(model.items.weight, theirs)).squeeze(-1)


@torch.no_grad()
def main() -> None:
    """Compare the forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=64, help="in a batch")
    parser.add_argument("--repeats", type=int, default=7, help="repetitions of each form; the median counts")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads; {options.users} users")
    print(" items   hidden layers      pairs    halves     kdrec   pairs / kdrec   halves / kdrec   error")
    for num_items, width, layers in ((1682, 20, 2), (1682, 200, 7), (25181, 64, 2)):
        model = NCF(width, layers, min_width=8)
        model.build(options.users, num_items)
        model.to(options.device).eval()
        users = torch.arange(options.users, device=options.device)
        forms = (of_pairs, of_halves, NCF.score_all)
        pairs, halves, ours = (median_milliseconds(partial(form, model, users), options.repeats) for form in forms)
        error = (of_pairs(model, users) - model.score_all(users)).abs().max().item()
        print(
            f"{num_items:>6}   {layers} from {width:>3}   {pairs:>8.1f} ms{halves:>7.1f} ms{ours:>7.1f} ms"
            f"{pairs / ours:>13.1f} x{halves / ours:>14.1f} x{error:>10.0e}"
        )


if __name__ == "__main__":
    main()
