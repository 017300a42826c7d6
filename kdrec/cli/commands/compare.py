"""``kdrec compare``: models side by side, by size, speed and quality."""

import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kdrec.cli.options import Options
from kdrec.cli.runs import require_writable
from kdrec.errors import InputError

if TYPE_CHECKING:
    from kdrec.deploy.compare import Report

SUMMARY = "lay models side by side: size, latency, quality, significance"

_DESCRIPTION = """Compare checkpoints and ONNX exports of one protocol: how large and how fast they are, all metrics,
what share of the reference's they keep, whether the differences are more than chance, and how much of the lists they
share.

The table goes to the terminal; with --output a folder gets it too, as table.md, models.csv (a row for each model)
and pairs.csv (a row for each two), with the figures size.png and latency.png. The data set must be there."""
_EXAMPLES = """examples:
  kdrec compare checkpoints/bpr_teacher/*/best.ckpt checkpoints/bpr_ftd/*/best.ckpt
  kdrec compare TEACHER STUDENT --metric recall@50 --output comparisons/mine
  kdrec compare STUDENT1 STUDENT2 --reference TEACHER --stage val --no-latency
  kdrec compare TEACHER STUDENT STUDENT_ONNX_FOLDER
  kdrec compare TEACHER STUDENT --format csv > models.csv
"""


def run(args: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: On faulty options, files that cannot be compared, a data set that is not there, or an output folder
            that exists or cannot be written.
    """
    parser = Options("compare", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "files", type=Path, nargs="*", metavar="FILE", help="checkpoints, and folders of kdrec export --format onnx"
    )
    parser.add_argument("--reference", type=Path, metavar="FILE", help="what the others are compared with, one of them "
                        "or one more (default: the largest checkpoint)")  # fmt: skip
    parser.add_argument("--stage", choices=("test", "val"), default="test", help="held-out items (default test)")
    parser.add_argument("--metric", help="what differences are tested in and figures show, such as recall@50 "
                        "(default ndcg@10)")  # fmt: skip
    parser.add_argument("--no-latency", action="store_true", help="measure no times")
    parser.add_argument("--format", choices=("table", "markdown", "csv"), default="table", help="default table")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for tables and figures (default: none)")
    parser.add_argument("--force", action="store_true", help="replace files of the same names in that folder")
    if (options := parser.read(args)) is None:
        return 0
    output: Path | None = options.output
    if output and (output.exists() and not (options.force and output.is_dir())):
        raise InputError(f"{output} exists already; name another folder with --output, or give --force.")
    if output:
        require_writable(output.parent, "Tables and figures", "--output")
    needed = ["scipy"] * (len(options.files) > 1 or bool(options.reference)) + ["matplotlib"] * bool(output)
    if missing := [name for name in needed if find_spec(name) is None]:  # before minutes are spent
        raise InputError(
            f"This comparison needs {' and '.join(missing)}; install the extra: python -m pip install '.[study]'."
        )

    from kdrec.cli.console import show  # here and below, so that --help needs no torch
    from kdrec.deploy.compare import compare_files
    from kdrec.deploy.tables import markdown, models_csv, tables

    report = compare_files(
        options.files, options.reference, options.stage, options.metric, not options.no_latency, _say
    )  # fmt: skip
    if options.format == "table":
        show(*tables(report))
    else:
        print({"markdown": markdown, "csv": models_csv}[options.format](report), end="")
    if output:
        try:
            _write(report, output)
        except OSError as error:
            raise InputError(f"{output} cannot be written ({error.strerror}); name another with --output.") from None
        _say(f"Written to {output}")
    return 0


def _write(report: "Report", output: Path) -> None:
    """Write all files into a folder beside the target first, so that nothing half-written stays."""
    from kdrec.deploy.figures import draw
    from kdrec.deploy.tables import markdown, models_csv, pairs_csv

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as made:
        folder = Path(made, "new")
        folder.mkdir()
        (folder / "table.md").write_text(markdown(report), encoding="utf-8")
        (folder / "models.csv").write_text(models_csv(report), encoding="utf-8")
        (folder / "pairs.csv").write_text(pairs_csv(report), encoding="utf-8")
        draw(report, folder)
        if output.exists():
            (output / "latency.png").unlink(missing_ok=True)  # of other models, if none is drawn now
            for file in folder.iterdir():
                file.replace(output / file.name)
        else:
            folder.rename(output)


def _say(line: str) -> None:
    """Tell what happens where it does not mix with the table."""
    print(line, file=sys.stderr, flush=True)
