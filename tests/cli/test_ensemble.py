"""An ensemble as a user makes it and uses it, on generated data."""

from pathlib import Path

import pytest
import yaml

from kdrec.cli.runs import config_digest
from kdrec.models import checkpoint
from kdrec.models.ease import EASE
from tests.cli.test_engine import only, rows
from tests.commandline import TEACHER, Kdrec


def config_of(recommender: str, **options: object) -> dict:
    model = {"recommender": {"class_path": recommender, "init_args": options}, "cutoffs": [5, 10]}
    return {
        **TEACHER,
        "model": {"class_path": "RankingModule", "init_args": model},
        "trainer": TEACHER["trainer"] | {"max_epochs": 1},
    }


@pytest.fixture
def ensemble(kdrec: Kdrec) -> Kdrec:
    """Write the configs of an ensemble and of a member."""
    Path("ease.yaml").write_text(yaml.safe_dump(config_of("EASE", regularization=5.0)))
    made = config_of("Ensemble", checkpoints=["teacher.yaml", "ease.yaml"])
    Path("ensemble.yaml").write_text(yaml.safe_dump(made))
    return kdrec


def test_members_are_trained_first_once_and_are_then_in_the_file(ensemble: Kdrec) -> None:
    ensemble("fit", "--config", "teacher.yaml")
    first = ensemble("fit", "--config", "ensemble.yaml")
    assert first.code == 0, first.error
    assert "Member: ease.yaml has no finished run with this config and data, so it is trained first" in first.out
    assert rows(first.out)["ensemble"][0] == "1,120"  # 16 * (30 + 40) parameters of the teacher
    again = ensemble("fit", "--config", "ensemble.yaml", "--name", "again")
    for member in ("teacher", "ease"):
        made = only(f"checkpoints/{member}/*/best.ckpt")
        assert f"Member: {member}.yaml was trained already with this config and data: {made}" in again.out
        made.unlink()
    tested = ensemble("test")
    assert tested.code == 0, tested.error
    assert rows(tested.out) == rows(ensemble("test", "--config", "ensemble.yaml").out)
    assert rows(tested.out)["ndcg"]
    assert ensemble("recommend", "--user", "101").code == 0


def test_what_a_file_holds_is_not_computed_again(ensemble: Kdrec, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensemble("fit", "--config", "ease.yaml").code == 0
    monkeypatch.setattr(EASE, "bind", None)
    said = checkpoint.read(only("checkpoints/ease/*/best.ckpt"))["kdrec"]["metrics"]
    found = ensemble("validate")
    assert rows(found.out)["recall"] == [f"{said[f'val/recall@{k}']:.4f}" for k in (5, 10)]


def test_checkpoints_are_members_too(ensemble: Kdrec) -> None:
    Path("popularity.yaml").write_text(yaml.safe_dump(config_of("Popularity")))  # which has no arguments at all
    assert ensemble("fit", "--config", "popularity.yaml").code == 0
    alone = only("checkpoints/popularity/*/best.ckpt")
    members = ["--model.init_args.recommender.init_args.checkpoints", [str(alone)]]
    done = ensemble("fit", "--config", "ensemble.yaml", *members)
    assert done.code == 0, done.error
    assert "Member" not in done.out
    among = only("checkpoints/ensemble/*/best.ckpt")
    shown = [ensemble("test", "--ckpt_path", str(path)) for path in (alone, among)]
    assert rows(shown[0].out)["ndcg"] == rows(shown[1].out)["ndcg"]


def test_an_ensemble_whose_members_change_is_another_one(ensemble: Kdrec) -> None:
    config = yaml.safe_load(ensemble("fit", "--config", "ensemble.yaml", "--print_config").out)
    assert config["model"]["init_args"]["recommender"]["init_args"]["checkpoints"] == ["teacher.yaml", "ease.yaml"]
    before = config_digest(config)
    assert config_digest(config) == before
    Path("ease.yaml").write_text("# A header.\n" + Path("ease.yaml").read_text())
    assert config_digest(config) == before
    for other in (yaml.safe_dump(config_of("EASE", regularization=6.0)), "no: [yaml", "", "- a list", "model: text"):
        Path("ease.yaml").write_text(other)
        assert config_digest(config) != before


def test_nothing_is_warned_of_and_no_curve_is_drawn_of_a_training_that_is_none(ensemble: Kdrec) -> None:
    for member in ("teacher", "ease"):
        ensemble("fit", "--config", f"{member}.yaml")
    done = ensemble("fit", "--config", "ensemble.yaml")
    assert not done.error
    record = checkpoint.read(only("checkpoints/ensemble/*/best.ckpt"))["kdrec"]["metrics"]
    assert record
    assert all(name.startswith("val/") for name in record)


def test_an_ensemble_has_no_vectors_to_teach_by(ensemble: Kdrec) -> None:
    for member in ("teacher", "ease", "ensemble"):
        ensemble("fit", "--config", f"{member}.yaml")
    made = str(only("checkpoints/ensemble/*/best.ckpt"))
    said = ensemble("fit", "--config", "student.yaml", "--model.init_args.teacher", made).sentence
    assert said.startswith("FTD compares vectors and the teacher, Ensemble, has none; choose another teacher")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], "Ensemble: checkpoints is empty; name at least one, or the config that makes it."),
        (["ease.yaml", "nowhere.ckpt"], "The member nowhere.ckpt is not there; give a checkpoint, or the config"),
        (["."], "The member . is a folder; give a checkpoint"),
        (["other.yaml"], "The member other.yaml would learn from other data than this run"),
        (["other.ckpt"], "The member other.ckpt was made on other data: it knows 31 users and this data has 30"),
        (["broken.ckpt"], "broken.ckpt cannot be read as a checkpoint"),
    ],
)
def test_members_that_cannot_be_used(ensemble: Kdrec, members: list[str], said: str) -> None:
    other = config_of("Popularity") | {"data": {"class_path": "tests.generated.GeneratedDataModule"}}
    other["data"]["init_args"] = {"num_users": 31}
    if members == ["other.ckpt"]:
        Path("larger.yaml").write_text(yaml.safe_dump(other))
        assert ensemble("fit", "--config", "larger.yaml").code == 0
        only("checkpoints/larger/*/best.ckpt").rename("other.ckpt")
    splitter = {"class_path": "kdrec.data.splits.LeaveOneOut", "init_args": {"order": "random"}}
    other["data"]["init_args"] = {"splitter": splitter}
    Path("other.yaml").write_text(yaml.safe_dump(other))
    Path("broken.ckpt").write_text("broken")
    made = config_of("Ensemble", checkpoints=members)
    Path("ensemble.yaml").write_text(yaml.safe_dump(made))
    assert ensemble("fit", "--config", "ensemble.yaml").sentence.startswith(said)
    assert not list(Path().glob("checkpoints/ensemble/*/*"))
