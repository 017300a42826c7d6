"""``kdrec export``: the model of a checkpoint as a folder that runs without kdrec."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrec.cli import runs
from kdrec.cli.options import Options
from kdrec.deploy.formats import FORMATS
from kdrec.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from kdrec.deploy.export import Export

SUMMARY = "write a checkpoint's model as ONNX, safetensors, torch program or vector index, in few bits if wanted"

_DESCRIPTION = """Export a model to a folder that runs without kdrec: the model, raw ids and titles, what each user has
seen, and a manifest with the digest of every part. It is compared with torch on users of the checkpoint, and kept only
if the lists agree.

  onnx          users.onnx and strangers.onnx with the top-k inside; see examples/runner.py
  safetensors   the tables by name
  torch_export  a torch program with the top-k inside
  faiss         an exact index of the item vectors, and the user vectors
  usearch       an HNSW index of the item vectors, and the user vectors"""
_EXAMPLES = """examples:
  kdrec export --format onnx                                          the newest checkpoint
  kdrec export --ckpt_path FILE --format onnx --quantize int8         a quarter of the bytes; says what it costs
  kdrec export --ckpt_path FILE --format safetensors --output folder
"""
_SHOWN = ("recall", "ndcg")
_DATA = ("vocabulary.json", "seen.npz")


def run(args: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: On faulty options, or as `kdrec.deploy.export.export`.
    """
    parser = Options("export", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--ckpt_path", type=Path, help="checkpoint (default: the newest best.ckpt)")
    parser.add_argument("--format", choices=FORMATS, help="what to write")
    parser.add_argument("--quantize", choices=("int8", "int4", "fp16"), help="round the tables, row by row")
    parser.add_argument("--output", type=Path, help="folder to make (default: beside the checkpoint)")
    parser.add_argument("--force", action="store_true", help="replace an export that stands there")
    parser.add_argument("-k", type=int, default=10, help="length of a torch program's lists (default 10)")
    if (options := parser.read(args)) is None:
        return 0
    if options.format is None:
        raise InputError(f"Say what to write: --format {' | '.join(FORMATS)}; see kdrec export --help.")
    path = options.ckpt_path or runs.newest_checkpoint()

    from kdrec.cli.console import show  # here and below, so that --help needs neither rich nor torch
    from kdrec.deploy.export import export

    done = export(path, options.format, options.quantize, options.output, options.force, options.k)
    show(_files(done), *_quality(done.manifest["quality"], options.quantize))
    return 0


def _files(done: "Export") -> "Table":
    """Lay out the files, and what they weigh beside the float model."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"Exported to {done.folder}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("file")
    for column in ("bytes", "share of the float model"):
        table.add_column(column, justify="right")
    for name, part in done.manifest["files"].items():
        share = "" if name in _DATA else f"{part['bytes'] / done.float_bytes:.1%}"
        table.add_row(name, f"{part['bytes']:,}", share)
    total = sum(part["bytes"] for name, part in done.manifest["files"].items() if name not in _DATA)
    table.add_section()
    table.add_row("model", f"{total:,}", f"{total / done.float_bytes:.1%}")
    return table


def _quality(quality: dict[str, Any], quantize: str | None) -> list[Any]:
    """Say how near it is to torch and, if it was rounded, what that cost."""
    from rich import box
    from rich.table import Table

    lines: list[Any] = [
        f"{who}: {found['same_order']} of {found['lists']} lists in torch's order, "
        f"scores differ by {found['largest_difference']:.1e} at most"
        for who, found in quality["parity"].items()
    ]
    if not (cost := quality.get("validation")):
        return lines
    if reason := cost.get("not_measured"):
        return [*lines, f"What {quantize} costs was not measured: {reason}."]
    table = Table(title=f"Validation, before and after {quantize}", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("metric", "before", "after", "kept"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, before in cost["before"].items():
        if name.partition("@")[0] in _SHOWN:
            after = cost["after"][name]
            table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after / before:.1%}" if before else "-")
    return [*lines, table]
