"""Give every reader of foreign input thousands of inputs: ``python -m tests.hostile [--inputs N] [READER ...]``.

Prints how many were refused with an InputError, how many were read, and what else happened, once for each place in the
code. Exits with 1 if anything else happened.
"""

import argparse
import contextlib
import random
import resource
import sys
import time
import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.hostile.collection import READERS
from tests.hostile.readers import Broken, Reader, outcome

_MEMORY = 8 << 30  # bytes of a process; who wants more fails


class _Enough(BaseException):
    """The time is over."""


def fuzz(reader: Reader, number: int, seconds: float, first: int) -> tuple[Counter[str], dict[str, str]]:
    """Give a reader its inputs; return how they ended, and one input for each place of another end."""
    counts: Counter[str] = Counter()
    others: dict[str, str] = {}
    end = time.monotonic() + seconds

    @seed(first)
    @settings(
        max_examples=number, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(reader.inputs)
    def one(content: object) -> None:
        if time.monotonic() > end:
            raise _Enough
        try:
            how = outcome(reader, content)
        except (Exception, Broken) as error:
            how = "other"
            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if "/kdrec/" in frame.filename or "/tests/" in frame.filename][-1]
            where = f"{type(error).__name__} at {own.filename.partition('/kdrec/')[2] or own.filename}:{own.lineno}"
            others.setdefault(where, f"{str(error)[:200]}\n        {content!r:.300}")
        counts[how] += 1

    with contextlib.suppress(_Enough):
        one()
    return counts, others


def main() -> int:
    """Run the readers that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.split("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help="part of a reader's name (default: all)")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each (default 10,000)")
    parser.add_argument("--seconds", type=float, default=180, help="for each, at most (default 180)")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs (default: another each time)")
    options = parser.parse_args()
    first = random.randrange(1 << 30) if options.seed is None else options.seed
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    chosen = [r for r in READERS if not options.readers or any(name in r.name for name in options.readers)]
    print(f"seed {first}\n{'reader':<36}{'inputs':>8}{'refused':>9}{'read':>8}{'other':>7}{'seconds':>9}", flush=True)
    total: Counter[str] = Counter()
    for reader in chosen:
        start = time.monotonic()
        counts, others = fuzz(reader, options.inputs, options.seconds, first)
        total += counts
        row = "".join(f"{value:>{width}}" for value, width in (
            (counts.total(), 8), (counts["refused"], 9), (counts["read"], 8), (counts["other"], 7)))  # fmt: skip
        print(f"{reader.name:<36}{row}{time.monotonic() - start:>9.0f}", flush=True)
        for place, content in others.items():
            print(f"    {place}: {content}", flush=True)
    print(f"{'all':<36}{total.total():>8}{total['refused']:>9}{total['read']:>8}{total['other']:>7}")
    return int(bool(total["other"]))


if __name__ == "__main__":
    sys.exit(main())
