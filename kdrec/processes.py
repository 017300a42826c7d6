"""Processes that do a part of this one's work do not outlive it."""

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dying_with_parent() -> Callable[[], object] | None:
    """Return what a child runs before its program, `preexec_fn` of `subprocess`, to be ended with this process.

    However this process ends, the kernel then sends SIGTERM to the child. None where there is no such kernel: elsewhere
    than on Linux children outlive their parent.
    """
    if sys.platform != "linux":
        return None
    try:
        request = ctypes.CDLL(None).prctl  # found here, for between fork and program nothing should be loaded
    except (OSError, AttributeError):
        return None
    return lambda: request(_PR_SET_PDEATHSIG, signal.SIGTERM)
