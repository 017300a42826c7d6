import csv
import io
import re
import shutil
from pathlib import Path

import pytest
import torch

from kdrec.data.splits import Split
from kdrec.models.bpr import BPR
from kdrec.models.checkpoint import read
from kdrec.models.ncf import NCF
from tests.commandline import Kdrec
from tests.deploy import byhand
from tests.generated import content_of

FILES = {"table.md", "models.csv", "pairs.csv", "size.png", "latency.png"}


def read_csv(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.fixture
def pair(split: Split, workplace: Path) -> tuple[str, str]:
    """A teacher and a student, untrained."""
    torch.manual_seed(0)
    for name, model in (("teacher", NCF(16)), ("student", BPR(4))):
        model.bind(split.train)
        folder = workplace / f"checkpoints/{name}/now"
        folder.mkdir(parents=True)
        torch.save(content_of(model, split.train), folder / "best.ckpt")
    return "checkpoints/teacher/now/best.ckpt", "checkpoints/student/now/best.ckpt"


def test_the_numbers_of_kdrec_test(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "student.yaml").code == 0  # and its teacher
    paths = [str(next(Path().glob(f"checkpoints/{name}/*/best.ckpt"))) for name in ("teacher", "student")]
    for stage, command in (("test", "test"), ("val", "validate")):
        done = kdrec("compare", *paths, "--stage", stage, "--no-latency", "--format", "csv")
        assert done.code == 0, done.error
        compared = list(csv.DictReader(io.StringIO(done.out)))
        assert [row["model"] for row in compared] == ["teacher", "student"]
        for path, row in zip(paths, compared, strict=True):
            tested = kdrec(command, "--ckpt_path", path, "--per_user", "users.csv")
            assert tested.code == 0, tested.error
            users = read_csv("users.csv")
            assert row["users"] == str(len(users))
            for name in users[0].keys() - {"user"}:
                values = [float(user[name]) for user in users if user[name] != "nan"]
                assert float(row[f"{stage}/{name}"]) == pytest.approx(sum(values) / len(values), abs=1e-12)
            [coverage] = re.findall(r"coverage +([\d.]+) +([\d.]+)", tested.out)
            assert coverage == tuple(f"{float(row[f'{stage}/coverage@{k}']):.4f}" for k in (5, 10))


def test_the_table_and_the_folder(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    done = kdrec("compare", *pair, "--output", "comparisons/mine")
    assert done.code == 0, done.error
    assert all(word in done.out for word in ("teacher", "student", "ms a user, p99", "shared top 10", "95 % interval"))
    assert max(map(len, done.out.splitlines())) <= 140
    assert {path.name for path in Path("comparisons/mine").iterdir()} == FILES
    assert [path.name for path in Path("comparisons").iterdir()] == ["mine"]  # nothing temporary
    rows = read_csv("comparisons/mine/models.csv")
    assert rows[1]["parameters"] == str(4 * (30 + 40))
    assert Path("comparisons/mine/table.md").read_text().startswith("# generated/leave-one-out-time-min3, full ranking")


def test_a_folder_that_exists(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    (folder / "table.md").write_text("old")
    command = ("compare", *pair, "--no-latency", "--output", "mine")
    assert kdrec(*command).sentence == "mine exists already; name another folder with --output, or give --force."
    assert (folder / "table.md").read_text() == "old"
    assert kdrec(*command, "--force").code == 0
    assert {path.name for path in folder.iterdir()} == FILES - {"latency.png"} | {"notes.txt"}
    assert "teacher" in (folder / "table.md").read_text()
    Path("file").write_text("")
    assert "file exists already" in kdrec("compare", *pair, "--output", "file", "--force").sentence


def test_a_written_table_is_the_printed_one(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    done = kdrec("compare", *pair, "--no-latency", "--format", "markdown", "--output", "mine")
    assert done.out == Path("mine/table.md").read_text()
    done = kdrec("compare", pair[1], "--reference", pair[0], "--no-latency", "--format", "csv")
    assert done.out == Path("mine/models.csv").read_text()


def test_an_export_beside_its_checkpoint(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    assert kdrec("export", "--ckpt_path", pair[1], "--format", "onnx").code == 0
    done = kdrec("compare", *pair, "checkpoints/student/now/best-onnx", "--format", "csv")
    assert done.code == 0, done.error
    teacher, student, exported = csv.DictReader(io.StringIO(done.out))
    assert [row["model"] for row in (teacher, student, exported)] == ["teacher", "student/best.ckpt", "best-onnx"]
    for name in ("test/recall@10", "test/coverage@5", "overlap@10", "parameters"):
        assert exported[name] == student[name]
    assert float(exported["latency_p50_ms"]) > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "There is nothing to compare; name one checkpoint at least."),
        (("{0}", "{0}"), "are the same file; name each once."),
        (("{0}", "nowhere.ckpt"), "There is no checkpoint nowhere.ckpt"),
        (("{0}", "teacher.yaml"), "teacher.yaml cannot be read as a checkpoint"),
        (("{0}", "byhand.ckpt"), "and byhand.ckpt for byhand/ready-made, full ranking; numbers of two protocols"),
        (("byhand.ckpt",), "There is no train.tsv in data/byhand"),
        (("{0}", "--metric", "recall@7"), "was not evaluated by 'recall@7'; did you mean 'recall@"),
        (("{0}", "--stage", "train"), "invalid choice: 'train'"),
        (("{0}", "--nope"), "There is no option '--nope'"),
    ],
)
def test_bad_input(kdrec: Kdrec, pair: tuple[str, str], options: tuple[str, ...], sentence: str) -> None:
    byhand.save("byhand", byhand.TEACHER)
    shutil.rmtree("data")
    before = sorted(Path().rglob("*"))
    assert sentence in kdrec("compare", *(option.format(*pair) for option in options)).sentence
    assert sorted(Path().rglob("*")) == before


def test_an_output_that_cannot_be_written_is_found_before_the_work(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    Path("poem").write_text("There was")
    done = kdrec("compare", *pair, "--output", "poem/inside")
    assert done.sentence.startswith(
        "Tables and figures cannot be written to poem (File exists); name another folder with --output"
    )
    assert "Ranking" not in done.error


def test_without_its_packages(kdrec: Kdrec, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdrec.cli.commands.compare.find_spec", lambda name: None)
    assert "This comparison needs scipy;" in kdrec("compare", *pair).sentence
    assert "needs scipy and matplotlib; install the extra" in kdrec("compare", *pair, "--output", "mine").sentence
    assert kdrec("compare", pair[0], "--no-latency").code == 0  # one model alone needs neither


def test_help_teaches(kdrec: Kdrec) -> None:
    done = kdrec("compare", "--help")
    assert done.code == 0
    assert all(word in done.out for word in ("--reference", "--no-latency", "examples:"))


def test_checkpoints_stay_as_they_are(kdrec: Kdrec, pair: tuple[str, str]) -> None:
    before = read(pair[0])["kdrec"]["metrics"], Path(pair[0]).read_bytes()
    assert kdrec("compare", *pair).code == 0
    assert (read(pair[0])["kdrec"]["metrics"], Path(pair[0]).read_bytes()) == before
