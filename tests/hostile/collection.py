"""All readers of this folder."""

import importlib
import pkgutil

import tests.hostile

READERS = [
    reader
    for module in pkgutil.iter_modules(tests.hostile.__path__)
    if module.name not in ("__main__", "collection", "guided", "tally", "trap") and not module.name.startswith("test_")
    for reader in getattr(importlib.import_module(f"tests.hostile.{module.name}"), "READERS", ())
]
