"""What is said while a command runs: the parser's complaints in one sentence, and no noise."""

import importlib
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable

from kdrec.errors import nearest

_NOISE = re.compile(
    r"^(Does not validate against|Subtypes?:|Errors:|Expected a <class 'NoneType'>|Given value type|"
    r"Subclass types expect|a class path \(str\)|a dict with|a dict without|Expected a path but)"
)


def explain(message: str, keys: Iterable[str]) -> str:
    """Condense a parser error.

    Args:
        message: What jsonargparse says, over many lines.
        keys: All option names of the command, to find the nearest to a misspelt one.

    Returns:
        One sentence: the key, what is wrong with it, and the nearest right name if it is misspelt.
    """
    path: list[str] = []
    class_path = given = ""
    leaves: list[str] = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            path.append(found[1])
            line = found[2]
        elif found := re.match(r"Problem with given class_path '([^']+)':", line):
            class_path = found[1]
            continue
        elif found := re.match(r"Given value: (.*)", line):
            given = given or found[1]
            continue
        if line and not _NOISE.match(line):
            leaves.append(line)
    where = ".".join(path)
    leaf, _, got = (" ".join(leaves) or "is not valid").partition(" Got value: ")
    return _misspelt(where, class_path, leaf, got, list(keys)) or _misplaced(where, class_path, leaf, got or given)


def _misspelt(where: str, class_path: str, leaf: str, got: str, keys: list[str]) -> str | None:
    """Name the option or class that was meant, if the complaint is that there is none such."""
    if found := re.search(r"Option '([^']+)' is not accepted", leaf):
        if nested := re.search(r"Namespace\(class_path='([^']+)'", got):
            class_path = nested[1]
        owner = f"{class_path.rpartition('.')[2]} ({where})" if class_path else where
        return f"{owner} has no option {found[1]!r}; {nearest(found[1], _parameters(class_path))}"
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: (?:--)?([\w.]+)", leaf):
        name = found[1] or found[2]
        head, heads = name.partition(".")[0], {key.partition(".")[0] for key in keys}
        near = nearest(name, keys) if head in heads else nearest(head, heads)
        return f"There is no option {name!r}; {near}"
    if found := re.search(r"dot import path string: (\S+)", leaf):
        name, known = found[1].rpartition(".")[2], _classes()
        if name in known:
            return f"{where or 'This option'}: {name} is no class that can stand there; see --help for those that can."
        return f"{where}: there is no class {found[1]!r}; {nearest(name, known)}"
    if found := re.search(r"(module '[^']+' has no attribute '[^']+'|No module named '[^']+')", leaf):
        return f"{where}: {found[1]}; give the dotted path of what you mean."
    return None


def _misplaced(where: str, class_path: str, leaf: str, got: str) -> str:
    """Say what stands where something else is needed."""
    if found := re.search(r"arguments? (?:is|are) required: (.*)", leaf):
        missing = ", ".join(name.partition(".")[2] if "." in name else name for name in found[1].split(", "))
        owner = f"{class_path.rpartition('.')[2]} needs" if class_path else "Missing:"
        return f"{owner} {missing}; give it in a --config file or as an option (see --help)."
    if "Unexpected config" in leaf:
        return "The config is empty, or no mapping of options to values; see the files in configs/."
    if "Not a valid subclass" in leaf:
        return f"{where}: expected a class_path and, under init_args, its options, and found other keys beside them."
    if types := re.findall(r"Expected an? <class '(\w+)'>", leaf):
        return f"{where}: found {got or 'something else'} where {' or '.join(types)} is needed."
    if choices := re.search(r"Expected a typing.Literal\[([^\]]+)\]", leaf):
        return f"{where}: found {got} where one of {choices[1]} is needed."
    if got and len(got) < 80:
        leaf = f"{leaf.rstrip('.')}, found {got}"
    return f"{where + ': ' if where else ''}{leaf.rstrip('.')}."


def _classes() -> list[str]:
    """Names of the classes that a config may mean."""
    return [
        name
        for module in [*sys.modules.values()]
        if module.__name__.startswith("kdrec.")
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and thing.__module__.startswith("kdrec.") and not inspect.isabstract(thing)
    ]


def _parameters(class_path: str) -> list[str]:
    """Names of a class's options; none if it cannot be found."""
    module, _, name = class_path.rpartition(".")
    try:
        return [*inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters][1:]
    except (ImportError, AttributeError, ValueError):
        return []


def is_first_rank() -> bool:
    """Whether this process speaks and writes for all."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def say(line: str) -> None:
    """Print in the first process only, at once, since another program's lines may follow."""
    if is_first_rank():
        print(line, flush=True)


def quieten() -> None:
    """Silence what Lightning says that is of no use here; each line with its reason."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # devices, tips
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)  # the seed stands in the config
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for message in (
        r".*does not have many workers.*",  # batches are slices of tensors: there is nothing for workers to do
        r".*recommended to use `self.log\(.*sync_dist=True.*",  # metrics are already equal on all ranks
        r".*smaller than the logging interval.*",  # training terms are logged once an epoch
        r".*The dirpath has changed from.*",  # a checkpoint that was moved
        r".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        r".*callbacks used to create the checkpoint need to be provided.*",  # a test needs none of a fit's callbacks
        r".*isinstance\(treespec, LeafSpec\).* is deprecated.*",  # between Lightning and torch, not ours
    ):
        warnings.filterwarnings("ignore", message)
