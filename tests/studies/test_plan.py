"""What a study file means, and what is said of one that means nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdrec.errors import InputError
from kdrec.studies.plan import TEACHER, Cell, read_study
from tests.commandline import ROOT
from tests.commandline import TEACHER as CONFIG

GOOD: dict[str, Any] = {
    "name": "small",
    "metric": "recall@5",
    "checkpoint": "last",
    "teacher": {"config": "teacher.yaml", "options": {"trainer.max_epochs": 9}},
    "methods": {
        "alone": "teacher.yaml",
        "FTD": {"config": "student.yaml", "options": {"model.init_args.distiller.init_args.scope": "all"}},
    },
    "grid": [
        {"students": [{"embedding_dim": 2}, {"embedding_dim": 4}], "seeds": [3, 1]},
        {"students": [{"embedding_dim": 8, "init_std": 0.5}], "methods": ["alone"], "seeds": [7]},
    ],
    "options": {"trainer.max_epochs": 2, "data.init_args.root": "elsewhere", "model.init_args.cutoffs": [5, 10]},
}
SHARED = (
    *("--trainer.max_epochs", "2"),
    *("--data.init_args.root", "elsewhere"),
    *("--model.init_args.cutoffs", "[5, 10]"),
)

pytestmark = pytest.mark.usefixtures("workplace")


def write(content: object) -> Path:
    path = Path("study.yaml")
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def refusal(path: Path) -> str:
    """Return the sentence that refuses a study; fails the test if it is not one, or does not name the file."""
    with pytest.raises(InputError) as caught:
        read_study(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    assert str(path) in said
    return said


def test_a_good_file_is_spelled_out_teachers_first() -> None:
    study = read_study(write(GOOD))
    assert (study.name, study.metric, study.checkpoint) == ("small", "recall@5", "last")
    assert study.methods == ("alone", "FTD")
    assert study.students == ("2", "4", "embedding_dim=8 init_std=0.5")
    assert [cell.label for cell in study.cells] == [
        "teacher seed 1",
        "teacher seed 3",
        "alone 2 seed 3",
        "alone 2 seed 1",
        "alone 4 seed 3",
        "alone 4 seed 1",
        "FTD 2 seed 3",
        "FTD 2 seed 1",
        "FTD 4 seed 3",
        "FTD 4 seed 1",
        "alone embedding_dim=8 init_std=0.5 seed 7",
    ]
    assert [cell.seed for cell in study.cells if cell.method == TEACHER] == [1, 3]  # none learns with seed 7


def test_the_arguments_are_a_fits_with_the_own_options_after_the_shared_ones() -> None:
    cells = {cell.label: cell for cell in read_study(write(GOOD)).cells}
    own = ("--trainer.max_epochs", "9", "--seed_everything", "3")
    assert cells["teacher seed 3"].arguments == ("--config", "teacher.yaml", *SHARED, *own)
    assert cells["alone 4 seed 1"].arguments == (
        *("--config", "teacher.yaml", *SHARED),
        *("--model.init_args.recommender.init_args.embedding_dim", "4", "--seed_everything", "1"),
    )
    assert cells["FTD 2 seed 3"].arguments == (
        *("--config", "student.yaml", *SHARED, "--model.init_args.distiller.init_args.scope", "all"),
        *("--model.init_args.student.init_args.embedding_dim", "2", "--seed_everything", "3"),
    )


def test_who_needs_which_teacher() -> None:
    study = read_study(write(GOOD))
    cells = {cell.label: cell for cell in study.cells}
    assert study.teacher_of(cells["FTD 4 seed 1"]) == cells["teacher seed 1"]
    assert study.teacher_of(cells["FTD 2 seed 3"]) == cells["teacher seed 3"]
    assert study.teacher_of(cells["alone 4 seed 1"]) is None
    assert study.teacher_of(cells["teacher seed 1"]) is None


def test_what_may_be_left_out() -> None:
    study = read_study(write({"metric": "ndcg@10", "methods": {"alone": "teacher.yaml"}, "grid": [{}]}))
    assert (study.name, study.checkpoint, study.students) == ("study", "best", ("",))
    [cell] = study.cells
    assert cell == Cell("alone", "", 0, ("--config", "teacher.yaml", "--seed_everything", "0"))
    assert (cell.label, cell.name) == ("alone seed 0", "alone-seed0")


def test_a_block_may_differ_from_another_in_seeds_alone() -> None:
    grid = [{"seeds": [0], "students": [{}]}, {"seeds": [1], "students": [{}], "methods": ["FTD"]}]
    assert [cell.label for cell in read_study(write({**GOOD, "grid": grid})).cells] == [
        *("teacher seed 0", "teacher seed 1", "alone seed 0", "FTD seed 0", "FTD seed 1")
    ]


def test_students_and_methods_keep_the_files_order() -> None:
    methods = {"z": "teacher.yaml", "a": "teacher.yaml"}
    grid = [{"students": [{"embedding_dim": 100}, {"embedding_dim": 20}], "methods": ["a", "z"]}]
    study = read_study(write({**GOOD, "methods": methods, "grid": grid}))
    assert (study.students, study.methods) == (("100", "20"), ("z", "a"))
    assert [cell.name for cell in study.cells] == [f"{m}-{size}-seed0" for m in ("a", "z") for size in (100, 20)]


def test_a_teacher_of_which_no_method_learns_is_not_trained() -> None:
    study = read_study(write({**GOOD, "methods": {"alone": "teacher.yaml"}}))
    assert {cell.method for cell in study.cells} == {"alone"}


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (2, "2"),
        (0.5, "0.5"),
        (True, "true"),
        (None, "null"),
        ("softmax", "softmax"),
        ("1e-3", "1e-3"),  # what YAML makes of 1e-3; the command line makes a number of it
        ([1, 2], "[1, 2]"),
        ({"class_path": "BPR"}, '{"class_path": "BPR"}'),
    ],
)
def test_values_are_written_as_the_command_line_takes_them(given: object, option: str) -> None:
    grid = [{"students": [{"key": given}], "methods": ["alone"]}]
    [cell] = read_study(write({**GOOD, "grid": grid, "options": {"shared": given}})).cells
    expected = ("--shared", option, "--model.init_args.recommender.init_args.key", option)
    assert cell.arguments == ("--config", "teacher.yaml", *expected, "--seed_everything", "0")


def test_a_date_as_yaml_reads_it_is_no_accident() -> None:
    text = yaml.safe_dump(GOOD).replace("elsewhere", "2020-01-02")
    assert '"2020-01-02"' in read_study(write(text)).cells[0].arguments


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (Cell("alone", "20", 0, ()), "alone-20-seed0"),
        (Cell("teacher", "", 12, ()), "teacher-seed12"),
        (Cell("FTD", "embedding_dim=8 init_std=0.5", 0, ()), "FTD-embedding_dim=8_init_std=0.5-seed0"),
        (Cell("../../up", "[1, 2]", 0, ()), ".._.._up-_1__2_-seed0"),
        (Cell("a\nb\0c|d", "-1", 0, ()), "a_b_c_d-_1-seed0"),
        (Cell("Größe+", "", 0, ()), "Größe+-seed0"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_cells_name_is_one_folder(cell: Cell, name: str) -> None:
    assert cell.name == name
    assert Path(name).name == name


def test_names_that_yaml_takes_for_numbers_are_names() -> None:
    methods = {2021: "teacher.yaml", True: "student.yaml"}
    study = read_study(
        write({**GOOD, "name": 7, "methods": methods, "grid": [{"methods": [True]}, {"methods": [2021]}]})
    )
    assert (study.name, study.methods) == ("7", ("2021", "True"))
    assert [cell.method for cell in study.cells] == [TEACHER, "True", "2021"]


@pytest.mark.parametrize("name", ["", None])
def test_without_a_name_the_file_gives_it(name: str | None) -> None:
    assert read_study(write({**GOOD, "name": name})).name == "study"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1", "The study study.yaml is no YAML: while parsing a flow sequence in"),
        ("\x00", "The study study.yaml is no YAML: unacceptable character"),
        ("", "options to values, and is empty."),
        ("[1, 2]", "study.yaml: The file must map name, metric, checkpoint, teacher, teachers, methods, grid, opti"),
        ("[1, 2]", "options to values, and is [1, 2]."),
        ("kdd21", "options to values, and is 'kdd21'."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_mapping(text: str, complaint: str) -> None:
    assert complaint in refusal(write(text))


@pytest.mark.parametrize("key", ["metric", "methods", "grid"])
def test_a_file_that_lacks_a_key(key: str) -> None:
    said = refusal(write({name: value for name, value in GOOD.items() if name != key}))
    assert said == f"study.yaml: The file lacks the key {key!r}; see configs/studies for what it means."


def test_a_student_without_a_teacher() -> None:
    said = refusal(write({name: value for name, value in GOOD.items() if name != "teacher"}))
    assert said == "study.yaml: there is no teacher, and FTD needs one; add teacher: CONFIG."


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"gird": []}, "The file has no key 'gird'; did you mean 'grid'?"),
        ({5: []}, "The file has no key 5; it has name, metric,"),
        ({"name": "../up"}, "name is '../up'; it names a folder, so it must hold no path."),
        ({"name": "a/b"}, "name is 'a/b'; it names a folder"),
        ({"name": ".."}, "name is '..'; it names a folder"),
        ({"name": "."}, "name is '.'; it names a folder"),
        ({"name": "/"}, "name is '/'; it names a folder"),
        ({"checkpoint": "first"}, "checkpoint is 'first'; it must be best (on validation) or last."),
        ({"methods": ["alone"]}, "methods must map each method's name to its config."),
        ({"methods": {}}, "methods must map each method's name to its config."),
        ({"methods": None}, "methods must map each method's name to its config."),
        ({"methods": {"alone": 5}}, "methods.alone must map config, options to values, and is 5."),
        ({"methods": {"alone": None}}, "methods.alone must map config, options to values, and is empty"),
        ({"methods": {"alone": {"options": {}}}}, "methods.alone lacks the key 'config'; see"),
        ({"methods": {"alone": {"config": "teacher.yaml", "optoins": {}}}},
         "methods.alone has no key 'optoins'; did you mean 'options'?"),
        ({"methods": {"alone": {"config": "teacher.yaml", "options": [1]}}},
         "methods.alone.options must map options of `kdrec fit` to values, and is [1]."),
        ({"methods": {"alone": "nowhere.yaml"}},
         "methods.alone: there is no config nowhere.yaml below the folder you are in."),
        ({"methods": {"alone": "."}}, "methods.alone: there is no config ."),
        ({"methods": {"alone": "plain.txt"}}, "methods.alone: plain.txt is no config of `kdrec fit`."),
        ({"methods": {"alone": "list.yaml"}}, "methods.alone: list.yaml is no config of"),
        ({"methods": {"alone": "broken.yaml"}}, "methods.alone: broken.yaml is no config of"),
        ({"methods": {"alone": "binary.yaml"}}, "methods.alone: binary.yaml is no config of"),
        ({"methods": {"alone": "odd.yaml"}}, "methods.alone: odd.yaml is no config of"),
        ({"methods": {"alone": "study.yaml"}}, "methods.alone: study.yaml is no config of"),
        ({"methods": {"teacher": "teacher.yaml"}, "grid": [{}]},
         "the name 'teacher' is taken by the teacher; give that method another."),
        ({"teacher": "nowhere.yaml"}, "teacher: there is no config nowhere.yaml below"),
        ({"teacher": ["teacher.yaml"]}, "teacher must map config, options to values, and is ['teacher"),
        ({"options": "x"}, "options must map options of `kdrec fit` to values, and is 'x'."),
        ({"grid": {"seeds": [0]}}, "grid must be a list of blocks, each with students, methods and"),
        ({"grid": "all"}, "grid must be a list of blocks"),
        ({"grid": []}, "grid must be a list of blocks"),
        ({"grid": None}, "grid must be a list of blocks"),
        ({"grid": [{}, 5]}, "grid[1] must map students, methods, teachers, seeds to values, and is 5."),
        ({"grid": [{"seed": [0]}]}, "grid[0] has no key 'seed'; did you mean 'seeds'?"),
        ({"grid": [{"seeds": 0}]}, "grid[0].seeds is 0; it must be a list with at least one entry."),
        ({"grid": [{"seeds": []}]}, "grid[0].seeds is []; it must be a list with at least one entry."),
        ({"grid": [{"seeds": ["a"]}]}, "grid[0].seeds holds 'a'; seeds are whole numbers from 0 on."),
        ({"grid": [{"seeds": [1.5]}]}, "grid[0].seeds holds 1.5; seeds are whole numbers"),
        ({"grid": [{"seeds": [-1]}]}, "grid[0].seeds holds -1; seeds are whole numbers"),
        ({"grid": [{"seeds": [True]}]}, "grid[0].seeds holds True; seeds are whole numbers"),
        ({"grid": [{"methods": ["FTT"]}]}, "grid[0] names the unknown method 'FTT'; did you mean 'FTD'?"),
        ({"grid": [{"methods": [5]}]}, "grid[0] names the unknown method '5'; it has alone, FTD."),
        ({"grid": [{"methods": [["FTD"]]}]}, "grid[0] names the unknown method \"['FTD']\"; "),
        ({"grid": [{"methods": "FTD"}]}, "grid[0].methods is 'FTD'; it must be a list"),
        ({"grid": [{"methods": []}]}, "grid[0].methods is []; it must be a list"),
        ({"grid": [{"students": {"embedding_dim": 2}}]},
         "grid[0].students is {'embedding_dim': 2}; it must be a list with at least one entry."),
        ({"grid": [{"students": []}]}, "grid[0].students is []; it must be a list"),
        ({"grid": [{"students": [20]}]},
         "grid[0].students holds 20; each is a mapping such as {embedding_dim: 20}."),
        ({"grid": [{"students": [None]}]}, "grid[0].students holds None; each is a mapping"),
        ({"grid": [{"seeds": [0, 0]}]}, "the cell 'alone seed 0' stands in the grid twice; take one out."),
        ({"grid": [{}, {"methods": ["FTD"]}]}, "the cell 'FTD seed 0' stands in the grid twice"),
        ({"grid": [{"students": [{"embedding_dim": 2}, {"width": 2}]}]},
         "the cells 'alone 2 seed 0' and 'alone 2 seed 0' would share the folder alone-2-seed0; give them"),
        ({"methods": {"A-B": "teacher.yaml", "A B": "teacher.yaml"}, "grid": [{}]},
         "the cells 'A-B seed 0' and 'A B seed 0' would share the folder A_B-seed0; give them names or"),
    ],
)  # fmt: skip
def test_bad_values(changes: dict[Any, Any], complaint: str) -> None:
    Path("plain.txt").write_text("hello")
    Path("list.yaml").write_text("[1]")
    Path("broken.yaml").write_text("a: [1")
    Path("binary.yaml").write_bytes(b"\xff\xfe\xfa")
    Path("odd.yaml").write_text(yaml.safe_dump({**CONFIG, "model": {"class_path": "RankingModule", "init_args": 5}}))
    assert refusal(write({**GOOD, **changes})).startswith(f"study.yaml: {complaint}")


def test_a_long_value_is_not_said_in_full() -> None:
    assert len(refusal(write({**GOOD, "teacher": list(range(1000))}))) < 200


def test_files_that_cannot_be_read(workplace: Path) -> None:
    said = "The study {} cannot be read ({}); see configs/studies."
    assert refusal(Path("nowhere.yaml")) == said.format("nowhere.yaml", "No such file or directory")
    assert refusal(workplace) == said.format(workplace, "Is a directory")
    Path("binary.yaml").write_bytes(b"\xff\xfe\xfa")
    assert "The study binary.yaml is no YAML: 'utf-8' codec" in refusal(Path("binary.yaml"))


def test_the_study_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path in sorted(Path("configs/studies").glob("*.yaml")):
        study = read_study(path)
        assert study.name == path.stem
        assert re.fullmatch(r"[a-z]+@\d+", study.metric)
        assert len({cell.name for cell in study.cells}) == len(study.cells)
        assert all(study.teacher_of(cell) for cell in study.cells if cell.needs_teacher)


SEVERAL = {
    **{key: value for key, value in GOOD.items() if key != "teacher"},
    "teachers": {"wide": "teacher.yaml", "old": {"config": "teacher.yaml", "options": {"trainer.max_epochs": 9}}},
    "grid": [{"students": [{"embedding_dim": 2}], "seeds": [3]}, {"methods": ["FTD"], "teachers": ["old"]}],
}


def test_several_teachers_each_with_students_of_its_own() -> None:
    study = read_study(write(SEVERAL))
    assert study.teachers == ("wide", "old")
    assert study.methods == ("alone", "FTD of wide", "FTD of old"), "who needs no teacher stands there once"
    cells = {cell.label: cell for cell in study.cells}
    assert list(cells) == [
        "teacher wide seed 3",
        "teacher old seed 0",
        "teacher old seed 3",
        "alone 2 seed 3",
        "FTD of wide 2 seed 3",
        "FTD of old 2 seed 3",
        "FTD of old seed 0",
    ]
    assert study.teacher_of(cells["FTD of old 2 seed 3"]) == cells["teacher old seed 3"]
    assert study.teacher_of(cells["FTD of wide 2 seed 3"]) == cells["teacher wide seed 3"]
    assert study.teacher_of(cells["alone 2 seed 3"]) is None
    assert "9" in cells["teacher old seed 0"].arguments


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"teacher": "teacher.yaml"}, "study.yaml: it has teacher and teachers; give one of them."),
        ({"teachers": ["teacher.yaml"]}, "study.yaml: teachers must map each teacher's name to its config, and is"),
        ({"teachers": {}}, "study.yaml: there is no teacher, and FTD needs one; add teacher: CONFIG."),
        ({"teachers": {"old": "nowhere.yaml"}}, "study.yaml: teachers.old: there is no config nowhere.yaml below"),
        ({"grid": [{"teachers": ["odl"]}]}, "grid[0] names the unknown teacher 'odl'; did you mean 'old'?"),
    ],
)
def test_bad_teachers(changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(write({**SEVERAL, **changes}))
