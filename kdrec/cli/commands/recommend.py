"""``kdrec recommend``: lists for a user, for a stranger with some liked items, or like an item."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kdrec.cli import runs
from kdrec.cli.options import Options
from kdrec.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from kdrec.deploy.recommender import Item

SUMMARY = "recommend items to a user, or by items, from a checkpoint alone"

_DESCRIPTION = """Recommend from a checkpoint: by raw ids and titles, without its data set.

Items that the user touched are left out. Scores order the items of one list and mean nothing else;
with --similar-to they are cosines."""
_EXAMPLES = """examples:
  kdrec recommend --user 42                                the newest checkpoint's best 10 for user 42
  kdrec recommend --user 42 -k 20 --format csv             as a table: rank,item,title,...
  kdrec recommend --items "Toy Story (1995)" 50 181        for somebody who likes these, by titles or ids
  kdrec recommend --similar-to "Star Wars (1977)"          whose vectors lie nearest
  kdrec recommend --ckpt_path checkpoints/bpr/RUN/best.ckpt --user 42
"""


def run(args: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: On faulty options, an unknown user or item, or a file that is no checkpoint.
    """
    parser = Options("recommend", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--ckpt_path", type=Path, help="checkpoint (default: the newest best.ckpt)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user", help="raw id of a user of the training data")
    who.add_argument("--items", nargs="+", metavar="ITEM", help="raw ids or titles that a stranger likes, latest last")
    who.add_argument("--similar-to", metavar="ITEM", help="raw id or title of an item")
    parser.add_argument("-k", type=int, default=10, help="items to list (default 10)")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default table")
    if (options := parser.read(args)) is None:
        return 0
    if options.user is None and options.items is None and options.similar_to is None:
        raise InputError("Say for whom: --user ID, --items ITEM ..., or --similar-to ITEM; see kdrec recommend --help.")
    path = options.ckpt_path or runs.newest_checkpoint()

    from kdrec.cli.console import show  # here and below, so that --help needs neither rich nor torch
    from kdrec.deploy.recommender import Deployed

    model = Deployed(path)
    if options.user is not None:
        user = model.user(options.user)
        asked, given = {"user": options.user}, model.described(model.latest(user))
        items, heading = (
            model.for_user(user, options.k),
            f"Touched {'last ' if model.timed else ''}by user {options.user}",
        )
    elif options.items is not None:
        indices = [model.item(name) for name in options.items]
        given, heading = model.described(indices), "Liked"
        asked, items = {"items": [item.id for item in given]}, model.for_items(indices, options.k)
    else:
        index = model.item(options.similar_to)
        given, heading = model.described([index]), "Similar to"
        asked, items = {"similar_to": given[0].id}, model.similar_to(index, options.k)
    if options.format == "table":
        show(
            _table(heading, given, model.labels_name), _table(f"Recommended by {path}", items, model.labels_name, True)
        )
    elif options.format == "json":
        lists = {"given": [asdict(item) for item in given], "recommended": [asdict(item) for item in items]}
        print(json.dumps({"checkpoint": str(path), **asked, **lists}, indent=1))
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["rank", "item", "title", model.labels_name or "labels", "score"])
        for rank, item in enumerate(items, start=1):
            writer.writerow([rank, item.id, item.title, item.labels, f"{item.score:.6g}"])
    return 0


def _table(title: str, items: "Sequence[Item]", labels: str, ranked: bool = False) -> "Table":
    """Lay out a list, with ranks and scores if it is ranked; columns that would be empty are left out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = {"item": [item.id for item in items]}
    columns["title"] = [item.title for item in items]
    columns[labels] = [item.labels.replace("|", ", ") for item in items]
    if ranked:
        ranks = {"rank": [str(rank) for rank in range(1, len(items) + 1)]}
        columns = ranks | columns | {"score": [f"{item.score:.4f}" for item in items]}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in ("rank", "score") else "left")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table
