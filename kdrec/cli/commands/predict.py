"""``kdrec predict``: every user's list, in a file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdrec.cli import runs
from kdrec.cli.options import Options

SUMMARY = "write all users' lists to a file, from a checkpoint alone"

_DESCRIPTION = """Write every user's best items from a checkpoint to .csv, .jsonl or .parquet, under raw ids and titles.

Items that the user touched, in training, validation or test, are left out. The file is made in parts, in OUTPUT.parts,
and appears when it is whole: the same command goes on after an interruption, and started several times at once it
shares the work."""
_EXAMPLES = """examples:
  kdrec predict                                            the newest checkpoint's best 10 for each user
  kdrec predict -k 50 --output lists.parquet               another length, place and format
  kdrec predict --users some.txt --output lists.jsonl      only for the users named there, a raw id a line
  kdrec predict --output lists.csv & kdrec predict --output lists.csv; wait     two processes, one file
"""


def run(args: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: On faulty options, unknown users, a file that is no checkpoint, or one that cannot be written.
    """
    parser = Options("predict", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--ckpt_path", type=Path, help="checkpoint (default: the newest best.ckpt)")
    parser.add_argument("--users", type=Path, metavar="FILE", help="text with a raw user id a line (default: all)")
    parser.add_argument("-k", type=int, default=10, help="items a user (default 10)")
    parser.add_argument("--output", type=Path, help="file to write (default predictions/NAME/RUN/best.csv)")
    parser.add_argument("--batch_size", type=int, default=1024, help="users a part of the file (default 1024)")
    parser.add_argument("--force", action="store_true", help="replace the output if it is there already")
    if (options := parser.read(args)) is None:
        return 0
    return _predict(options)


def _predict(options: argparse.Namespace) -> int:
    from kdrec.deploy.parts import Parts  # light, and first: what is there by now is nobody's who starts with us

    path = options.ckpt_path or runs.newest_checkpoint()
    run_folder = path.resolve().parent
    output = options.output or Path("predictions", run_folder.parent.name, run_folder.name, f"{path.stem}.csv")
    parts = Parts(output, options.force)

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from kdrec.deploy.predictions import predict
    from kdrec.deploy.recommender import Deployed

    model = Deployed(path)
    columns = TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    hidden = not sys.stderr.isatty()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
            task = bar.add_task("", total=None)
            done = predict(
                model, parts, options.users, options.k, options.batch_size,
                lambda users, total: bar.update(task, completed=users, total=total),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped. Finished parts are kept in {parts.folder}; the same command goes on."
        ) from None
    here = "" if done.ranked == done.users else f" ({done.ranked:,} of them by this process)"
    print(
        f"{done.rows:,} rows for {done.users:,} users{here} in {done.seconds:.1f} s, "
        f"{done.ranked / done.seconds:,.0f} users/s: {output}"
    )
    return 0
