"""Every bad input ends in one sentence and exit code 2, and leaves nothing behind."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml

from tests.commandline import STUDENT, Kdrec

M = "--model.init_args"
ADAM = {"class_path": "torch.optim.Adam"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--trainer.max_epochz", "1"], "There is no option 'trainer.max_epochz'; did you mean 'trainer.max_epochs'?"),
        (["--trainer.max_epochs", "two"], "trainer.max_epochs: found two where int is needed."),
        (["--trainer.max_epochs", "-3"], "`max_epochs` must be a non-negative integer or -1. You passed in -3."),
        (["--seed_everything", "x"], "seed_everything: found x where bool or int is needed."),
        (["--data.init_args.batch_size", "0"], "GeneratedDataModule: batch_size is 0; it must be at least 1."),
        (["--data.init_args.batch_size", "x"], "data.batch_size: found x where int is needed."),
        (["--data.init_args.num_negatives", "-1"], "GeneratedDataModule: num_negatives is -1; it must be at least 1."),
        ([f"{M}.cutoffs", "[5,5000]"], "The cutoff 5000 does not fit a catalogue of 40 items; choose 1..40."),
        ([f"{M}.cutoffs", "[]"], "The list of cutoffs is empty; give the k of every metric@k, such as [10, 20]."),
        ([f"{M}.num_candidates", "41"], "num_candidates is 41; it must lie between 1 and the catalogue's 40."),
        ([f"{M}.distiller.init_args.weight", "-1"], "FTD: weight is -1.0; it must be a number and not negative."),
        ([f"{M}.distiller.init_args.scope", "al"], "scope: found al where one of 'batch', 'positives', 'all' is"),
        ([f"{M}.student.init_args.embedding_dim", "0"], "BPR: embedding_dim is 0; it must be at least 1."),
        ([f"{M}.student.init_args.embeding_dim", "3"], "BPR (model.student) has no option 'embeding_dim'; did"),
        ([f"{M}.student", "BPRR"], "model.student: there is no class 'BPRR'; did you mean 'BPR'?"),
        ([f"{M}.student", "FTD"], "model.student: FTD is no class that can stand there"),
        (["--model.help", "NCF"], "NCF is no class that can stand there"),
        ([f"{M}.loss", "kdrec.models.losses.bprr"], "module 'kdrec.models.losses' has no attribute 'bprr'"),
        ([f"{M}.optimizer", ADAM | {"init_args": {"lrr": 1}}], "Adam (model.optimizer) has no option 'lrr'; did"),
        ([f"{M}.teacher", "nowhere.ckpt"], "The teacher nowhere.ckpt is not there; give a checkpoint, or"),
        ([f"{M}.teacher", "."], "The teacher . is a folder; give a checkpoint"),
        ([f"{M}.teacher", "nowhere.yaml"], "The teacher nowhere.yaml is not there"),
        ([f"{M}.optimizer.init_args.lr", "-0.1"], "The optimizer refuses its options: Invalid learning rate: -0.1."),
        (["--early_stopping.monitor", "val/ndgc@10"], "there is no metric 'val/ndgc@10'; did you mean 'val/ndcg@10'?"),
        (["--name", "../x"], "--name is '../x'; it names a folder below checkpoints"),
        (["--trainer.max_epoch", "1"], "There is no option 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        (["--ckpt_path", "nowhere.ckpt"], "There is no checkpoint nowhere.ckpt"),
        (["--ckpt_path", "last"], "There is no last.ckpt under checkpoints/student"),
        (["--ckpt_path"], "argument --ckpt_path: expected one argument."),
        (["--checkpoint.dirpath", "student.yaml/x"], "Checkpoints cannot be written to student.yaml/x"),
        (["--trainer.accelerator", "gpu", "--trainer.devices", "99"], "gpu"),
    ],
)  # fmt: skip
def test_options(kdrec: Kdrec, options: list[object], complaint: str) -> None:
    before = sorted(Path().rglob("*"))
    assert complaint in kdrec("fit", "--config", "student.yaml", *options).sentence
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({**STUDENT, "dta": 1}, "There is no option 'dta'; did you mean 'data'?"),
        ({**STUDENT, "trainer": {"max_epoch": 1}}, "There is no option 'trainer.max_epoch'; did you mean"),
        ({key: STUDENT[key] for key in ("model", "trainer")}, "Missing: data; give it in a --config file"),
        ({**STUDENT, "model": {"class_path": "DistillationModule"}}, "DistillationModule needs"),
        ("a: [1", "did not find expected"),
        ("", "The config is empty"),
    ],
    ids=["key", "nested key", "no data", "no arguments", "no YAML", "empty"],
)  # fmt: skip
def test_configs(kdrec: Kdrec, config: object, complaint: str) -> None:
    Path("bad.yaml").write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    assert complaint in kdrec("fit", "--config", "bad.yaml").sentence


def test_a_config_that_is_not_there(kdrec: Kdrec) -> None:
    assert "nowhere.yaml" in kdrec("fit", "--config", "nowhere.yaml").sentence
    assert "Missing: data, model" in kdrec("fit").sentence


def test_nothing_to_test(kdrec: Kdrec) -> None:
    assert "run `kdrec fit` first" in kdrec("test").sentence


class Exploit:
    """Pickled, it wants to create a file when it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("pwned", "w"))


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit", "teacher"])
def test_checkpoints_that_are_none(kdrec: Kdrec, command: str) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    [good] = Path().glob("checkpoints/*/*/best.ckpt")
    Path("cut.ckpt").write_bytes(good.read_bytes()[:3000])
    Path("text.ckpt").write_text("hello")
    Path("empty.ckpt").touch()
    torch.save({"state_dict": {"a": torch.ones(2)}}, "foreign.ckpt")
    torch.save([1], "list.ckpt")
    torch.save({"kdrec": Exploit()}, "exploit.ckpt")
    Path("pickle.ckpt").write_bytes(pickle.dumps({"kdrec": Exploit()}))
    content = torch.load(good, weights_only=True)
    content["kdrec"]["format"] = 99
    torch.save(content, "newer.ckpt")
    args = {
        "fit": ["fit", "--config", "teacher.yaml", "--ckpt_path"],
        "teacher": ["fit", "--config", "student.yaml", f"{M}.teacher"],
    }.get(command, [command, "--ckpt_path"])
    for file, complaint in {
        "cut": "cut off, damaged or of another program",
        "text": "cut off, damaged or of another program",
        "empty": "cut off, damaged or of another program",
        "foreign": "was not written by kdrec",
        "list": "was not written by kdrec",
        "exploit": "nothing in it was run",
        "pickle": "nothing in it was run",
        "newer": "has format 99",
    }.items():
        said = kdrec(*args, f"{file}.ckpt").sentence
        assert complaint in said
        assert f"{file}.ckpt" in said
    assert not Path("pwned").exists()


def test_a_class_that_only_the_file_names_is_not_imported(kdrec: Kdrec, workplace: Path) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    [good] = Path().glob("checkpoints/*/*/best.ckpt")
    content = torch.load(good, weights_only=True)
    (workplace / "trap.py").write_text("open('pwned', 'w')")
    for part, args in (("data", ["test"]), ("model", ["test"]), ("model", ["test", "--config", "teacher.yaml"])):
        changed = {**content, "kdrec": {**content["kdrec"], part: {"class_path": "trap.Trap", "init_args": {}}}}
        torch.save(changed, "trap.ckpt")
        said = kdrec(*args, "--ckpt_path", "trap.ckpt").sentence
        assert "names the class trap.Trap" in said or "holds Trap()" in said
    assert not Path("pwned").exists()


def test_a_teacher_or_a_run_on_other_data(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    [good] = Path().glob("checkpoints/*/*/best.ckpt")
    other = ["--data.init_args.seed", "1"]
    said = kdrec("fit", "--config", "student.yaml", *other, f"{M}.teacher", str(good)).sentence
    assert "was made on other data" in said
    said = kdrec("fit", "--config", "teacher.yaml", *other, "--ckpt_path", str(good)).sentence
    assert "does not belong to this run: its training data is" in said
    said = kdrec("test", "--config", "teacher.yaml", *other, "--ckpt_path", str(good)).sentence
    assert "does not belong to this run: its training data is" in said


def test_an_unforeseen_error_is_one_line_and_code_1(kdrec: Kdrec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("the sky fell")

    monkeypatch.setattr("kdrec.data.base.InteractionDataModule.setup", fail)
    done = kdrec("fit", "--config", "teacher.yaml")
    assert done.code == 1
    assert "unexpected ZeroDivisionError: the sky fell" in done.error
    assert "Traceback" not in done.error
    with pytest.raises(ZeroDivisionError):
        kdrec("--debug", "fit", "--config", "teacher.yaml")


def test_a_config_of_another_model_is_refused(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    wider = ["--model.init_args.recommender.init_args.embedding_dim", "4"]
    for args in (wider, ["--config", "teacher.yaml", *wider]):
        said = kdrec("test", *args).sentence
        assert "holds BPR(embedding_dim=16, init_std=0.01) and the config says BPR(embedding_dim=4" in said


def test_a_finished_run_is_left_alone(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    [record] = Path().glob("checkpoints/*/*/run.json")
    before = record.read_text()
    said = kdrec("fit", "--config", "teacher.yaml", "--ckpt_path", "last").sentence
    assert "has trained 2 epochs and trainer.max_epochs is 2" in said
    assert record.read_text() == before


def test_a_folder_is_no_checkpoint(kdrec: Kdrec, workplace: Path) -> None:
    assert f"{workplace} is a folder; name a checkpoint in it" in kdrec("test", "--ckpt_path", str(workplace)).sentence


def test_a_place_for_per_user_values_is_checked_first(kdrec: Kdrec) -> None:
    assert kdrec("fit", "--config", "teacher.yaml").code == 0
    done = kdrec("test", "--per_user", "nowhere/users.csv")
    assert "its folder is not there" in done.sentence
    assert "Test of" not in done.out


def test_a_folder_with_a_config_is_not_written_over(kdrec: Kdrec) -> None:
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("precious")
    said = kdrec("fit", "--config", "teacher.yaml", "--checkpoint.dirpath", "mine").sentence
    assert "mine holds a run or a config already" in said
    assert Path("mine/config.yaml").read_text() == "precious"
