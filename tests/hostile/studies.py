"""Study files."""

from pathlib import Path

import yaml
from hypothesis import strategies as st

from kdrec.studies.plan import read_study
from tests.commandline import STUDENT, TEACHER
from tests.hostile.inputs import damaged, mangled
from tests.hostile.readers import Reader

SOUND = {
    "name": "small", "metric": "recall@5", "checkpoint": "last",
    "teachers": {"wide": {"config": "teacher.yaml", "options": {"trainer.max_epochs": 9}}, "old": "teacher.yaml"},
    "methods": {"alone": "teacher.yaml", "FTD": {"config": "student.yaml", "options": {"model.init_args.x": [1, "a"]}}},
    "grid": [{"students": [{"embedding_dim": 2}, {"width": 8, "std": 0.5}], "methods": ["FTD"], "teachers": ["old"],
              "seeds": [3, 1]}, {}],
    "options": {"data.init_args.root": "elsewhere"},
}  # fmt: skip
TEXT = yaml.safe_dump(SOUND).encode()
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)


_METHODS = {"teacher.yaml": yaml.safe_dump(TEACHER), "student.yaml": yaml.safe_dump(STUDENT)}


def _read(content: bytes) -> None:
    Path("study.yaml").write_bytes(content)
    for name, text in _METHODS.items():
        Path(name).write_text(text)
    study = read_study(Path("study.yaml"))
    assert all(study.teacher_of(cell) for cell in study.cells if cell.needs_teacher)
    for cell in study.cells:
        assert Path(cell.name).name == cell.name
        assert len(cell.name) < 10**6
        assert all(isinstance(argument, str) for argument in cell.arguments)


def _of(tree: object) -> bytes:
    return yaml.dump(tree, allow_unicode=True).encode(errors="surrogatepass")


def _config(content: bytes) -> None:
    """Of a method, whose model the study looks up."""
    Path("study.yaml").write_text("metric: recall@5\nmethods: {alone: config.yaml}\ngrid: [{}]")
    Path("config.yaml").write_bytes(content)
    read_study(Path("study.yaml"))


READERS = (
    Reader("study files, bytes", damaged(TEXT, LAUGHS.encode()), _read, (
        LAUGHS.encode(),
        f"{LAUGHS}metric: *p\ngrid: *p\nmethods: *p".encode(),
        f"x: {{{LAUGHS.replace(chr(10), ', ')} z: 1}}".encode(),
        b"metric: 2020-13-45", b"metric: " + b"9" * 5000, b"[" * 3000, b"&a [*a]", b"? [a]\n: 1", b"metric: =",
    )),
    Reader("study files, values", mangled(SOUND).map(_of), _read),
    Reader("configs of a study", st.one_of(damaged(_of(STUDENT)), mangled(STUDENT).map(_of)), _config),
)  # fmt: skip
