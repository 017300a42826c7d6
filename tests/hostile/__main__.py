"""Give every reader of foreign input thousands of inputs: ``python -m tests.hostile [--inputs N] [READER ...]``.

Prints how many were refused with an InputError, how many were read, and what else happened, once for each place in the
code. Exits with 1 if anything else happened.
"""

import argparse
import contextlib
import random
import resource
import sys
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.hostile.collection import READERS
from tests.hostile.readers import Reader
from tests.hostile.tally import HEAD, Tally

_MEMORY = 8 << 30  # bytes of a process; who wants more fails


class _Enough(BaseException):
    """The time is over."""


def fuzz(reader: Reader, number: int, seconds: float, first: int) -> Tally:
    """Give a reader its inputs; return how they ended."""
    tally = Tally(reader)

    @seed(first)
    @settings(
        max_examples=number, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(reader.inputs)
    def one(content: object) -> None:
        if tally.seconds > seconds:
            raise _Enough
        tally.take(content)

    with contextlib.suppress(_Enough):
        one()
    return tally


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
    print(f"seed {first}\n{HEAD}", flush=True)
    total: Counter[str] = Counter()
    for reader in chosen:
        tally = fuzz(reader, options.inputs, options.seconds, first)
        total += tally.counts
        print(tally, flush=True)
    print(f"{'all':<36}{total.total():>8}{total['refused']:>9}{total['read']:>8}{total['other']:>7}")
    return int(bool(total["other"]))


if __name__ == "__main__":
    sys.exit(main())
