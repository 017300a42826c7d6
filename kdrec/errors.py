"""The one exception that means: what the user gave cannot be used."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that says what, where and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class UnknownName(InputError):
    """The user named something that is not there."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or which there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {', '.join(known)}." if 0 < len(known) <= 12 else "see --help for what there is."
