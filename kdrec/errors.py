"""The one exception that means: what the user gave cannot be used."""

import difflib
from collections.abc import Iterable

_LONGEST = 1500  # characters of a sentence


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that says what, where and what to do.

    The command line prints the message without a traceback and exits with code 2. Much of a sentence quotes what
    strangers wrote, so what cannot be printed is escaped, and a long one is cut in its middle.

    Example:
        >>> print(InputError("There is no film '\\x1b[2J'; see\\nthe list."))
        There is no film '\\x1b[2J'; see\\nthe list.
    """

    def __init__(self, sentence: str) -> None:
        line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in sentence)
        half = _LONGEST // 2
        super().__init__(line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}")


class UnknownName(InputError):
    """The user named something that is not there."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or which there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {', '.join(known)}." if 0 < len(known) <= 12 else "see --help for what there is."
