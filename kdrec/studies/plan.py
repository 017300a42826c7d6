"""A study file: which models, methods and seeds are compared, spelled out as cells."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrec.documents import read_yaml
from kdrec.errors import InputError, nearest

TEACHER = "teacher"
_KEYS = ("name", "metric", "checkpoint", "teacher", "teachers", "methods", "grid", "options")
_BLOCK_KEYS = ("students", "methods", "teachers", "seeds")


@dataclass(frozen=True)
class Cell:
    """One fit.

    Attributes:
        method: Its name in the study, "teacher" for a teacher; where there are several, "FTD of ncf".
        student: What sets the students of a method apart, such as "20" or "embedding_dim=20 init_std=1.0"; of a
            teacher its name, "" if there is but one.
        seed: Of everything.
        arguments: Options of ``kdrec fit``, the config first; the teacher's checkpoint is not among them.
        needs_teacher: Whether the seed's teacher must be there first.
        teacher: Which one, if there are several.
    """

    method: str
    student: str
    seed: int
    arguments: tuple[str, ...]
    needs_teacher: bool = False
    teacher: str = ""

    @property
    def name(self) -> str:
        """The folder of the cell."""
        parts = [self.method, self.student, f"seed{self.seed}"]
        return "-".join("".join(c if c.isalnum() or c in "=._+" else "_" for c in part) for part in parts if part)

    @property
    def label(self) -> str:
        """The cell in words."""
        return " ".join(part for part in (self.method, self.student, f"seed {self.seed}") if part)


@dataclass(frozen=True)
class Study:
    """A study file that was found to be sound.

    Attributes:
        name: Of the study and its folder.
        metric: What tables, tests of significance and figures are about, such as "recall@50".
        checkpoint: Which weights are tested: "best" on validation, or "last".
        methods: In the file's order; the first is what the others are compared with.
        students: In the file's order.
        cells: Teachers first.
    """

    name: str
    metric: str
    checkpoint: str
    methods: tuple[str, ...]
    students: tuple[str, ...]
    cells: tuple[Cell, ...]

    def teacher_of(self, cell: Cell) -> Cell | None:
        """Return the cell that must be finished before this one."""
        if not cell.needs_teacher:
            return None
        wanted = (TEACHER, cell.teacher, cell.seed)
        return next(other for other in self.cells if (other.method, other.student, other.seed) == wanted)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers, as their cells have them; one alone is called ""."""
        return tuple(dict.fromkeys(cell.student for cell in self.cells if cell.method == TEACHER))


def read_study(path: Path) -> Study:
    """Read a study file; see configs/studies for what stands in one.

    Raises:
        InputError: If it cannot be read, a key is misspelt or missing, a method is unknown, or two cells are equal.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise InputError(f"The study {path} cannot be read ({error.strerror}); see configs/studies.") from None
    except ValueError as error:
        raise InputError(f"The study {path} is no YAML: {' '.join(str(error).split())[:160]}.") from None
    content = _mapping(content, path, "The file", _KEYS, required=("metric", "methods", "grid"))
    name = str(content.get("name") or path.stem)
    if Path(name).name != name or name in (".", "..") or not name.isprintable():
        raise InputError(f"{path}: name is {name!r}; it names a folder, so it must hold no path.")
    checkpoint = content.get("checkpoint", "best")
    if checkpoint not in ("best", "last"):
        raise InputError(f"{path}: checkpoint is {checkpoint!r}; it must be best (on validation) or last.")
    if not isinstance(content["methods"], Mapping) or not content["methods"]:
        raise InputError(f"{path}: methods must map each method's name to its config.")
    shared = _options(content.get("options"), path, "options")
    configs = {
        str(method): _method(given, path, f"methods.{method}", shared) for method, given in content["methods"].items()
    }
    if TEACHER in configs:
        raise InputError(f"{path}: the name {TEACHER!r} is taken by the teacher; give that method another.")
    masters = _teachers(content, path, shared)
    cells = _cells(content["grid"], configs, list(masters), path)
    wanted = dict.fromkeys((cell.teacher, cell.seed) for cell in cells if cell.needs_teacher)
    teachers = [
        Cell(TEACHER, teacher, seed, (*masters[teacher], *_seed(seed)))
        for teacher, seed in sorted(wanted, key=lambda pair: (list(masters).index(pair[0]), pair[1]))
    ]
    order = [f"{method} of {teacher}" if teacher else method for method in configs for teacher in ("", *masters)]
    made = {cell.method for cell in cells}
    return Study(
        name,
        str(content["metric"]),
        checkpoint,
        tuple(configs) if len(masters) < 2 else tuple(method for method in dict.fromkeys(order) if method in made),
        tuple(dict.fromkeys(cell.student for cell in cells)),
        (*teachers, *cells),
    )


def _teachers(content: Mapping[str, Any], path: Path, shared: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the options of ``kdrec fit`` for each teacher by its name; one alone is called ""."""
    if "teacher" in content and "teachers" in content:
        raise InputError(f"{path}: it has teacher and teachers; give one of them.")
    if "teacher" in content:
        return {"": _method(content["teacher"], path, "teacher", shared)[0]}
    named = content.get("teachers", {})
    if not isinstance(named, Mapping):
        raise InputError(f"{path}: teachers must map each teacher's name to its config, and is {str(named)[:80]!r}.")
    return {str(name): _method(given, path, f"teachers.{name}", shared)[0] for name, given in named.items()}


def _cells(
    grid: Any, configs: Mapping[str, tuple[tuple[str, ...], dict[str, Any]]], teachers: Sequence[str], path: Path
) -> list[Cell]:
    """Spell out the blocks of a grid."""
    if not isinstance(grid, Sequence) or isinstance(grid, str) or not grid:
        raise InputError(f"{path}: grid must be a list of blocks, each with students, methods and seeds.")
    cells: dict[str, Cell] = {}  # by folder
    for number, given in enumerate(grid):
        where = f"grid[{number}]"
        block = _mapping(given, path, where, _BLOCK_KEYS)
        students = _listed(block.get("students", [{}]), path, f"{where}.students")
        for method in map(str, _listed(block.get("methods", list(configs)), path, f"{where}.methods")):
            if method not in configs:
                raise InputError(f"{path}: {where} names the unknown method {method!r}; {nearest(method, configs)}")
            arguments, config = configs[method]
            needs_teacher = "teacher" in config
            if needs_teacher and not teachers:
                raise InputError(f"{path}: there is no teacher, and {method} needs one; add teacher: CONFIG.")
            masters = [""]
            if needs_teacher:
                masters = [*map(str, _listed(block.get("teachers", list(teachers)), path, f"{where}.teachers"))]
            for student, teacher in itertools.product(students, masters):
                if needs_teacher and teacher not in teachers:
                    raise InputError(
                        f"{path}: {where} names the unknown teacher {teacher!r}; {nearest(teacher, teachers)}"
                    )
                label, options = _student(student, config, path, where)
                name = f"{method} of {teacher}" if teacher else method
                for seed in _listed(block.get("seeds", [0]), path, f"{where}.seeds"):
                    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                        raise InputError(f"{path}: {where}.seeds holds {seed!r}; seeds are whole numbers from 0 on.")
                    cell = Cell(name, label, seed, (*arguments, *options, *_seed(seed)), needs_teacher, teacher)
                    if other := cells.get(cell.name):
                        raise InputError(
                            f"{path}: the cell {cell.label!r} stands in the grid twice; take one out."
                            if other == cell
                            else f"{path}: the cells {other.label!r} and {cell.label!r} would share the folder "
                            f"{cell.name}; give them names or options that tell them apart."
                        )
                    cells[cell.name] = cell
    return list(cells.values())


def _method(given: Any, path: Path, where: str, shared: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return (options of ``kdrec fit``, the arguments of the model in the config)."""
    entry = {"config": given} if isinstance(given, str) else given
    entry = _mapping(entry, path, where, ("config", "options"), required=("config",))
    config = Path(str(entry["config"]))
    try:
        model = {**(read_yaml(config)["model"].get("init_args") or {})}
    except OSError:
        raise InputError(f"{path}: {where}: there is no config {config} below the folder you are in.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: {where}: {config} is no config of `kdrec fit`.") from None
    return ("--config", str(config), *shared, *_options(entry.get("options"), path, f"{where}.options")), model


def _student(given: Any, model: Mapping[str, Any], path: Path, where: str) -> tuple[str, tuple[str, ...]]:
    """Return (label, options of ``kdrec fit``) of a student's options."""
    if not isinstance(given, Mapping):
        raise InputError(f"{path}: {where}.students holds {given!r}; each is a mapping such as {{embedding_dim: 20}}.")
    role = "student" if "student" in model else "recommender"
    options = {f"model.init_args.{role}.init_args.{key}": value for key, value in given.items()}
    label = str(*given.values()) if len(given) == 1 else " ".join(f"{key}={value}" for key, value in given.items())
    return label, _options(options, path, where)


def _options(given: Any, path: Path, where: str) -> tuple[str, ...]:
    """Turn a mapping of dotted options into a command line."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise InputError(f"{path}: {where} must map options of `kdrec fit` to values, and is {given!r}.")
    values = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in given.items()}
    return tuple(text for key, value in values.items() for text in (f"--{key}", value))


def _seed(seed: int) -> tuple[str, str]:
    return "--seed_everything", str(seed)


def _listed(given: Any, path: Path, where: str) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise InputError(f"{path}: {where} is {given!r}; it must be a list with at least one entry.")
    return given


def _mapping(given: Any, path: Path, where: str, keys: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return a mapping that holds the required keys and none but the known ones."""
    if not isinstance(given, Mapping):
        found = "empty" if given is None else repr(given)[:80]
        raise InputError(f"{path}: {where} must map {', '.join(keys)} to values, and is {found}.")
    for key in given:
        if key not in keys:
            raise InputError(f"{path}: {where} has no key {key!r}; {nearest(str(key), keys)}")
    for key in required:
        if key not in given:
            raise InputError(f"{path}: {where} lacks the key {key!r}; see configs/studies for what it means.")
    return dict(given)
