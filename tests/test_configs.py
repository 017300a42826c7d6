"""Every config of the repository is complete: it parses, says how to use it, and trains on generated data."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdrec.models.bert4rec import BERT4Rec
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.studies.plan import read_study
from tests.commandline import ROOT, Kdrec

CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.yaml"))
STUDIES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs" / "studies").glob("*.yaml"))
every_config = pytest.mark.parametrize("config", CONFIGS, ids=str)


def test_none_is_missed() -> None:
    assert len(CONFIGS) == 45
    assert len(STUDIES) == 10
    assert len([*(ROOT / "configs").rglob("*.yaml")]) == len(CONFIGS) + len(STUDIES)


@every_config
def test_the_header_teaches(config: Path) -> None:
    header = [line for line in (ROOT / config).read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert f"kdrec fit --config {config}" in text
    for word in ("Command", "Prerequisite", "Expected", "Hardware", "Time"):
        assert re.search(rf"^# {word}", text, re.MULTILINE), word


@every_config
def test_parses_and_prints_itself(kdrec: Kdrec, config: Path) -> None:
    done = kdrec("fit", "--config", str(ROOT / config), "--print_config")
    assert done.code == 0, done.error
    given, printed = yaml.safe_load((ROOT / config).read_text()), yaml.safe_load(done.out)
    assert printed["trainer"]["max_epochs"] == given["trainer"]["max_epochs"]
    assert printed["model"]["init_args"]["optimizer"] is not None


def write(options: dict[str, Any], quick: dict[str, Any], name: str = "config.yaml") -> None:
    """Write a config here, and those that it needs."""
    options = options | quick
    arguments = options["model"]["init_args"]
    if teacher := arguments.get("teacher"):
        arguments["teacher"] = "teacher.yaml"
        write(yaml.safe_load((ROOT / teacher).read_text()), quick, "teacher.yaml")
    if members := arguments.get("recommender", {}).get("init_args", {}).get("checkpoints"):
        arguments["recommender"]["init_args"]["checkpoints"] = [Path(member).name for member in members]
        for member in members:
            write(yaml.safe_load((ROOT / member).read_text()), quick, Path(member).name)
    Path(name).write_text(yaml.safe_dump(options))


@every_config
def test_trains_one_epoch_on_generated_data(kdrec: Kdrec, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = yaml.safe_load((ROOT / config).read_text())
    options["data"] = {"class_path": "tests.generated.GeneratedDataModule", "init_args": {"num_items": 60}}
    options["trainer"] |= {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    options["trainer"]["check_val_every_n_epoch"] = 1
    options["checkpoint"] = {"every_n_epochs": 1}
    quick = {key: options[key] for key in ("data", "trainer", "checkpoint")}
    write(options, quick)
    done = kdrec("fit", "--config", "config.yaml")
    assert done.code == 0, done.error
    assert "Validation, best epoch" in done.out


@every_config
def test_a_student_is_at_most_a_tenth_of_its_teacher(config: Path) -> None:
    options = yaml.safe_load((ROOT / config).read_text())
    if not (teacher := options["model"]["init_args"].get("teacher")):
        return
    wide = yaml.safe_load((ROOT / teacher).read_text())["model"]["init_args"]["recommender"]
    if members := wide["init_args"].get("checkpoints"):  # one of them is wide enough
        wide = yaml.safe_load((ROOT / members[0]).read_text())["model"]["init_args"]["recommender"]
    sizes = []
    for part in (options["model"]["init_args"]["student"], wide):
        model = {"BPR": BPR, "NCF": NCF, "BERT4Rec": BERT4Rec}[part["class_path"]](**part["init_args"])
        model.build(943, 1682)
        sizes.append(model.num_parameters())
    assert sizes[0] <= 0.1 * sizes[1]


@pytest.mark.parametrize("study", STUDIES, ids=str)
def test_a_study_teaches_and_its_cells_parse(study: Path, monkeypatch: pytest.MonkeyPatch, kdrec: Kdrec) -> None:
    monkeypatch.chdir(ROOT)
    text = "\n".join(line for line in study.read_text().splitlines() if line.startswith("#"))
    assert f"kdrec study {study}" in text
    for word in ("Command", "Prerequisite", "Expected", "Hardware", "Time"):
        assert re.search(rf"^# {word}", text, re.MULTILINE), word
    done = kdrec("study", str(study), "--list", "--output", str(ROOT / "nowhere"))
    assert done.code == 0, done.error
    assert f"0 of {len(read_study(study).cells)} cells are finished" in done.out
