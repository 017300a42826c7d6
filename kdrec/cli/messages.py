"""What is said while a command runs: the parser's complaints in one sentence, and no noise."""

import difflib
import importlib
import inspect
import logging
import os
import re
import warnings
from collections.abc import Iterable

_NOISE = re.compile(
    r"^(Does not validate against|Subtypes?:|Errors:|Expected a <class 'NoneType'>|Given value|Subclass types expect|"
    r"a class path \(str\)|a dict with|a dict without|Expected a path but)"
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
    class_path = ""
    leaves: list[str] = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', line):
            path.append(found[1])
            line = found[2]
        elif found := re.match(r"Problem with given class_path '([^']+)':", line):
            class_path = found[1]
            continue
        if line and not _NOISE.match(line):
            leaves.append(line)
    where = ".".join(path)
    leaf = " ".join(leaves) or "is not valid"

    if found := re.search(r"Option '([^']+)' is not accepted", leaf):
        if nested := re.search(r"Namespace\(class_path='([^']+)'", leaf):
            class_path = nested[1]
        owner = f"{class_path.rpartition('.')[2]} ({where})" if class_path else where
        return f"{owner} has no option {found[1]!r}; {_nearest(found[1], _parameters(class_path))}"
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: (?:--)?([\w.]+)", leaf):
        name = found[1] or found[2]
        return f"There is no option {name!r}; {_nearest(name, keys)}"
    if found := re.search(r"arguments? (?:is|are) required: (.*)", leaf):
        missing = ", ".join(name.partition(".")[2] if "." in name else name for name in found[1].split(", "))
        owner = f"{class_path.rpartition('.')[2]} needs" if class_path else "Missing:"
        return f"{owner} {missing}; give it in a --config file or as an option (see --help)."
    if class_path and re.search(r"has no attribute|No module named|dot import path", leaf):
        return f"{where}: there is no class {class_path!r} ({leaf.rstrip('.')}); check its class_path."
    if "Not a valid subclass" in leaf:
        return f"{where}: expected a class_path and, under init_args, its options, and found other keys beside them."
    leaf = re.sub(r"Expected an? <class '(\w+)'>", r"expected \1", leaf)
    return f"{where + ': ' if where else ''}{leaf.rstrip('.')}."


def _parameters(class_path: str) -> list[str]:
    """Names of a class's options; none if it cannot be found."""
    module, _, name = class_path.rpartition(".")
    try:
        return [*inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters][1:]
    except (ImportError, AttributeError, ValueError):
        return []


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {', '.join(known)}." if 0 < len(known) <= 12 else "see --help for what there is."


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
    for message in (
        r".*does not have many workers.*",  # batches are slices of tensors: there is nothing for workers to do
        r".*recommended to use `self.log\(.*sync_dist=True.*",  # metrics are already equal on all ranks
        r".*smaller than the logging interval.*",  # training terms are logged once an epoch
        r".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        r".*isinstance\(treespec, LeafSpec\).* is deprecated.*",  # between Lightning and torch, not ours
    ):
        warnings.filterwarnings("ignore", message)
