"""Let atheris choose the inputs of a reader, by the lines that they reach: ``python -m tests.hostile.guided READER``.

It needs the extra ``fuzz`` (Linux). The same inputs are made from its bytes as without it, and are counted as there.
"""

import argparse
import importlib
import os
import sys
from typing import Any

from hypothesis import given, settings


def main() -> None:
    """Run one reader; ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.guided", description=__doc__.split("\n")[0])
    parser.add_argument("reader", metavar="READER", help="part of a reader's name; the first that has it")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="at most (default 1,000,000)")
    parser.add_argument("--seconds", type=float, default=180, help="at most (default 180)")
    parser.add_argument("--seed", type=int, default=1, help="of the bytes (default 1)")
    options = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["kdrec", "yaml"]):
        readers = importlib.import_module("tests.hostile.collection").READERS
        tallies: Any = importlib.import_module("tests.hostile.tally")
    tally = tallies.Tally(next(reader for reader in readers if options.reader in reader.name))

    @settings(database=None)
    @given(tally.reader.inputs)
    def one(content: object) -> None:
        tally.take(content)

    def step(data: bytes) -> None:
        one.hypothesis.fuzz_one_input(data)  # type: ignore[attr-defined]
        if tally.seconds > options.seconds or tally.counts.total() >= options.inputs:
            print(f"seed {options.seed}\n{tallies.HEAD}\n{tally}", flush=True)
            os._exit(int(bool(tally.counts["other"])))  # libFuzzer knows no other end that keeps the count

    # its own alarm and limit of memory would stand beside those of the readers
    own = ["-timeout=0", "-rss_limit_mb=0", "-max_len=4096", "-len_control=0", f"-seed={options.seed}"]
    atheris.Setup([sys.argv[0], *own], step)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
