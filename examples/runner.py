"""Recommend from a folder of `kdrec export --format onnx` with onnxruntime and numpy alone.

python examples/runner.py FOLDER --user 42
python examples/runner.py FOLDER --items "Toy Story (1995)" 50 181 -k 20
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def load(folder: Path) -> dict:
    """Check every part of the export, and return its vocabulary."""
    if not (folder / "manifest.json").is_file():
        sys.exit(f"{folder} is no export; `kdrec export --format onnx` makes one.")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if (manifest["format"], manifest["kind"]) != (1, "onnx"):
        sys.exit(f"{folder} holds {manifest['kind']} in format {manifest['format']}; this program runs onnx, format 1.")
    for name, part in manifest["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
            sys.exit(f"{path} is missing, damaged or of another export; export the model again.")
    return json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))


def item_index(name: str, vocabulary: dict) -> int:
    """Find an item by its raw id or its title."""
    for known in (vocabulary["items"], vocabulary["titles"] or []):
        if name in known:
            return known.index(name)
    sys.exit(f"There is no item {name!r}.")


def ask(path: Path, **inputs: np.ndarray) -> np.ndarray:
    """Run a graph on one thread; returns the items of its only list."""
    if not path.is_file():
        sys.exit(f"This model knows no strangers: there is no {path}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["items"], inputs)[0][0]


def main() -> None:
    """Print ranks, ids and titles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="raw id")
    who.add_argument("--items", nargs="+", help="raw ids or titles that a stranger likes")
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    vocabulary = load(options.folder)
    titles = vocabulary["titles"] or [""] * len(vocabulary["items"])
    if not 1 <= options.k <= len(titles):
        sys.exit(f"k is {options.k}; it must lie between 1 and {len(titles)}.")
    k = np.array(options.k, np.int64)
    if options.user is not None:
        if options.user not in vocabulary["users"]:
            sys.exit(f"There is no user {options.user!r}.")
        user = vocabulary["users"].index(options.user)
        with np.load(options.folder / "seen.npz") as seen:
            hidden = seen["items"][slice(*seen["offsets"][user : user + 2])].astype(np.int64)
        found = ask(options.folder / "users.onnx", users=np.array([user]), seen=hidden[None], k=k)
    else:
        liked = np.unique([item_index(name, vocabulary) for name in options.items])
        found = ask(options.folder / "strangers.onnx", liked=liked[None], k=k)
    for rank, item in enumerate(found[found >= 0], start=1):
        print(f"{rank}\t{vocabulary['items'][item]}\t{titles[item]}")


if __name__ == "__main__":
    main()
