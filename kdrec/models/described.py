"""Objects as plain values, their class and arguments, and what is made again of a stranger's.

A class is taken only from kdrec itself or from a module that the program has imported already, and only where it is of
the kind that its place takes.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from kdrec.errors import InputError

_DEEPEST = 10  # classes in classes that a file may name


def as_config(thing: object) -> dict[str, Any]:
    """Return the ``class_path`` and ``init_args`` that make an object again, in plain values.

    The object must keep each argument of its constructor under the argument's own name, as models, data modules and
    splitters do.

    Example:
        >>> from kdrec.models.bpr import BPR
        >>> as_config(BPR(embedding_dim=8))
        {'class_path': 'kdrec.models.bpr.BPR', 'init_args': {'embedding_dim': 8, 'init_std': 0.01}}
    """
    parameters = inspect.signature(type(thing)).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    arguments = {name: _plain(getattr(thing, name)) for name in named}
    return {"class_path": f"{type(thing).__module__}.{type(thing).__qualname__}", "init_args": arguments}


def rebuild(config: Mapping[str, Any]) -> Any:
    """Return the object that `as_config` described; of a file's config, `require_known_classes` comes first.

    Example:
        >>> rebuild({"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 8}}).embedding_dim
        8
    """
    made = _resolve(config["class_path"])
    assert made is not None, config["class_path"]
    return made(**{name: _rebuilt(value) for name, value in config.get("init_args", {}).items()})


def _rebuilt(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_rebuilt(part) for part in value]
    return rebuild(value) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return as_config(value)


def require_known_classes(config: Any, path: str | Path, kind: type | tuple[type, ...], level: int = 0) -> None:
    """Refuse a part of a checkpoint that could make a config parser import what the file's author chose.

    Importing a module runs its code, and so does making an object. So a class must come from kdrec or from a module
    that is imported already, and be of the kind that its place takes; and text may stand only where a class takes
    text, since a parser reads text as a class or as a file anywhere else.

    Args:
        config: Nested dicts as `as_config` makes them.
        path: The checkpoint; for messages.
        kind: What the outermost class must be; those within are of the kinds that constructors say.
        level: How deep it stands in another one.

    Raises:
        InputError: If it names another class, has text in another place, is too deep, or is no such dict.
    """
    damaged = f"The checkpoint {path} is damaged:"
    arguments = config.get("init_args", {}) if isinstance(config, dict) else None
    if (
        not isinstance(arguments, dict)
        or not isinstance(config.get("class_path"), str)
        or level > _DEEPEST
        or not all(isinstance(name, str) for name in (*config, *arguments))
    ):
        raise InputError(f"{damaged} it does not say its classes as class_path and init_args; make it again.")
    class_path = config["class_path"]
    module = class_path.rpartition(".")[0]
    if module.partition(".")[0] != "kdrec" and module not in sys.modules:
        raise InputError(
            f"The checkpoint {path} names the class {class_path}, which kdrec does not import on a file's word; "
            f"if you trust it, give the --config that made the checkpoint, or import {module} first."
        )
    found = _resolve(class_path)
    if found is None:
        raise InputError(f"{damaged} there is no class {class_path}; use the kdrec version that wrote it.")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not issubclass(found, kinds) or inspect.isabstract(found):
        raise InputError(f"{damaged} {class_path} is not a {' or '.join(each.__name__ for each in kinds)}.")
    types = get_type_hints(found.__init__)
    for name, value in arguments.items():
        if isinstance(value, list | tuple) and name in types and not _takes_several(types[name]):
            raise InputError(f"{damaged} {class_path} takes no list as {name}; make it again.")
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, dict) and (taken := _classes_in(types.get(name))):
                require_known_classes(part, path, taken, level + 1)
            elif not isinstance(part, str | int | float | None):
                raise InputError(f"{damaged} {class_path} takes no {type(part).__name__} as {name}; make it again.")
            elif isinstance(part, str) and not _takes(types.get(name), (str,)):
                raise InputError(f"{damaged} {class_path} takes no text as {name}; make it again.")
            elif isinstance(part, int | float) and name in types and not _takes(types[name], (int, float, bool)):
                raise InputError(f"{damaged} {class_path} takes no number as {name}; make it again.")


def _classes_in(annotation: Any) -> tuple[type, ...]:
    """Return the classes that a parameter takes, alone or in a list, without Python's own such as int."""
    if isinstance(annotation, type) and annotation.__module__ != "builtins" and not get_args(annotation):
        return (annotation,)
    return tuple(found for part in get_args(annotation) for found in _classes_in(part))


def _takes(annotation: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a parameter takes values of one of these kinds, alone, in a list, or as one of several choices."""
    return annotation in kinds or any(isinstance(part, kinds) or _takes(part, kinds) for part in get_args(annotation))


def _takes_several(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str:
        return True
    return any(_takes_several(part) for part in get_args(annotation))


def _resolve(class_path: str) -> type | None:
    """Return the class of a dotted path, or None if there is none; imports its module."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) else None


def shown(config: Mapping[str, Any]) -> str:
    """Say a class with its arguments.

    Example:
        >>> shown({"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 8}})
        'BPR(embedding_dim=8)'
    """
    arguments = ", ".join(f"{name}={_shown(value)}" for name, value in (config.get("init_args") or {}).items())
    return f"{str(config.get('class_path')).rpartition('.')[2]}({arguments})"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return shown(value) if isinstance(value, Mapping) else str(value)
