"""Find what the contract tests run over: nothing is listed anywhere."""

import importlib
import inspect
import pkgutil
from types import ModuleType


def modules(room: str) -> list[ModuleType]:
    """Import and return the modules of ``kdrec.ROOM``."""
    package = importlib.import_module(f"kdrec.{room}")
    return [importlib.import_module(f"kdrec.{room}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]


def subclasses(room: str, base: type) -> list[type]:
    """Return the concrete subclasses of a contract that a room defines."""
    return [
        thing
        for module in modules(room)
        for thing in vars(module).values()
        if inspect.isclass(thing)
        and issubclass(thing, base)
        and thing.__module__ == module.__name__
        and not inspect.isabstract(thing)
        and thing is not base
    ]
