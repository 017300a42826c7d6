"""Configs, as ``kdrec fit`` reads them: they are trusted, since they name what is imported, and yet may be faulty."""

import contextlib
import copy
import io
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st

from kdrec.cli.engine import KdrecCLI, discover
from kdrec.cli.main import main
from kdrec.cli.parser import FitParser
from kdrec.data.splits import LeaveOneOut
from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from tests.commandline import STUDENT, TEACHER
from tests.generated import content_of, generate
from tests.hostile.checkpoints import saved
from tests.hostile.inputs import damaged, mangled
from tests.hostile.readers import TRAP, Broken, Reader

_SPELLED: dict[str, Any] = {
    **STUDENT, "seed_everything": 1, "name": "mine", "checkpoint": {"monitor": "val/recall@5"},
    "early_stopping": {"patience": 2},
    "data": {"class_path": "tests.generated.GeneratedDataModule",
             "init_args": {"splitter": {"class_path": "LeaveOneOut", "init_args": {"seed": 1}}, "batch_size": 5}},
}  # fmt: skip


_SPELLED["model"] = copy.deepcopy(STUDENT["model"])
_SPELLED["model"]["init_args"]["teacher"] = "t.ckpt"


def _yaml(tree: object) -> bytes:
    return yaml.dump(tree, allow_unicode=True, sort_keys=False).encode(errors="surrogatepass")


_bytes = damaged(_yaml(TEACHER), _yaml(_SPELLED))
_values = st.one_of(mangled(TEACHER), mangled(_SPELLED)).map(_yaml)


@cache
def _parser() -> FitParser:
    discover()
    return FitParser()


@cache
def _teacher() -> bytes:
    split = LeaveOneOut("time")(generate())
    model = BPR(4)
    model.bind(split.train)
    return saved(content_of(model, split.train))


# jsonargparse starts one to look for the signatures of what is written in C
_NO_PROCESS = mock.patch("subprocess.Popen", side_effect=InputError("No process is started here."))


def _parse(content: bytes) -> None:
    Path("config.yaml").write_bytes(content)
    with _NO_PROCESS, _trusted():
        _parser().parse_fit(["--config", "config.yaml"])


@contextlib.contextmanager
def _trusted() -> Iterator[None]:
    """Let a config name what is imported: that is what it is for."""
    try:
        yield
    finally:
        sys.modules.pop(TRAP, None)


def _set_up(cli: KdrecCLI, *_: object) -> None:
    """Take the parser that is there: to build one, the same for every config, takes longer than all else."""
    built = _parser()
    cli.parser, cli._subcommand_parsers = built.parser, built._subcommand_parsers
    cli._subcommand_method_arguments = built._subcommand_method_arguments


def _fit(content: bytes) -> None:
    """All of a fit, up to its first step."""
    Path("config.yaml").write_bytes(content)
    Path("t.ckpt").write_bytes(_teacher())
    told = io.StringIO()
    with (
        contextlib.redirect_stderr(told), mock.patch.object(KdrecCLI, "fit"),
        mock.patch.object(KdrecCLI, "setup_parser", _set_up), _NO_PROCESS, _trusted(),
    ):  # fmt: skip
        code = main(["fit", "--config", "config.yaml"])
    lines = [line for line in told.getvalue().splitlines() if line.startswith("kdrec: ")]
    if code == 2 and len(lines) == 1 and "Traceback" not in told.getvalue():
        raise InputError(lines[0])
    if code:
        raise Broken(f"exit code {code}: {told.getvalue()[-300:]}")
    if left := sorted({path.name for path in Path().iterdir()} - {"config.yaml", "t.ckpt", "checkpoints", "logs"}):
        raise Broken(f"left {left}")


_ONCE: tuple[dict[str, Any], ...] = (
    {"data": {"class_path": "kdrec.data.base.InteractionDataModule"}}, {"data": {}}, {"name": "\x00"},
    {"ckpt_path": "x" * 300}, {"seed_everything": 2**64}, {"seed_everything": -1}, {"trainer": [1]},
    {"trainer": {"accelerator": "tpu"}}, {"checkpoint": {"dirpath": "\x00"}},
)  # fmt: skip

READERS = (
    Reader("configs, bytes", _bytes, _parse),
    Reader("configs, values", _values, _parse),
    Reader("a fit's configs", st.one_of(_bytes, _values, _values), _fit, (
        b"a: &a [*a]", b"!!int ''", b"!!timestamp x", *(_yaml({**TEACHER, **changes}) for changes in _ONCE)
    ), few=5),
)  # fmt: skip
