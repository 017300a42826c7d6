"""How the many inputs of a reader ended."""

import time
import traceback
from collections import Counter

from tests.hostile.readers import Broken, Reader, outcome

HEAD = f"{'reader':<36}{'inputs':>8}{'refused':>9}{'read':>8}{'other':>7}{'seconds':>9}"


class Tally:
    """Counts how inputs ended, and keeps one for each place in the code where something else happened.

    Args:
        reader: Is given the inputs.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.counts: Counter[str] = Counter()
        self.others: dict[str, str] = {}
        self.start = time.monotonic()

    def take(self, content: object) -> None:
        """Give the reader an input."""
        try:
            how = outcome(self.reader, content)
        except (Exception, Broken) as error:
            how = "other"
            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if "/kdrec/" in frame.filename or "/tests/" in frame.filename][-1]
            where = f"{type(error).__name__} at {own.filename.partition('/kdrec/')[2] or own.filename}:{own.lineno}"
            self.others.setdefault(where, f"{str(error)[:200]}\n        {content!r:.300}")
        self.counts[how] += 1

    @property
    def seconds(self) -> float:
        """Since the first input."""
        return time.monotonic() - self.start

    def __str__(self) -> str:
        """A row of the table, and what else happened below it."""
        row = f"{self.counts.total():>8}{self.counts['refused']:>9}{self.counts['read']:>8}{self.counts['other']:>7}"
        found = "".join(f"\n    {place}: {content}" for place, content in self.others.items())
        return f"{self.reader.name:<36}{row}{self.seconds:>9.0f}{found}"
