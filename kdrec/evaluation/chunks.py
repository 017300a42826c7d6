"""Work through users in chunks that the memory can take."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from kdrec.errors import InputError

CPU_BYTES = 1 << 22
"""Bytes of scores to compute together on a CPU, whose caches hold about so many."""
CPU_USERS = 8
"""So many users are scored together on a CPU at least: one by one, each would read a large catalogue anew."""
GPU_SHARE = 4
"""One part in so many of a GPU's free memory is given to scores; a ranking holds up to three copies of them."""

Result = TypeVar("Result")


def in_chunks(work: Callable[[Tensor], Result], users: Tensor, bytes_a_user: int) -> list[Result]:
    """Call a function with some users at a time, and with half as many after each time that the memory did not suffice.

    Args:
        work: Is given (b,) users. A call that fails must leave nothing behind.
        users: (B,), on the device whose memory counts. If there are none, ``work`` is given none, once.
        bytes_a_user: What it holds of scores for each.

    Returns:
        What ``work`` returned, in the order of the users.

    Raises:
        InputError: If the memory does not suffice for a single user.
    """
    results: list[Result] = []
    fewest = CPU_USERS if users.device.type == "cpu" else 1
    size, start = max(fewest, budget(users.device) // bytes_a_user), 0
    while start < len(users) or not results:
        some = users[start : start + size]
        try:
            results.append(work(some))
            start += len(some)
            continue
        except (RuntimeError, MemoryError) as error:  # torch has an error of its own on GPUs alone
            if not is_out_of_memory(error):
                raise
            if len(some) <= 1:
                raise InputError(
                    f"The memory of {users.device} does not suffice to score the catalogue for one user, which takes "
                    f"{bytes_a_user:,} bytes and some copies; free some, or take another device."
                ) from error
        size = len(some) // 2  # here, where the error and all that its traceback holds are gone
        if users.device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def budget(device: torch.device) -> int:
    """Return how many bytes of scores a device takes at once."""
    if device.type != "cuda":
        return CPU_BYTES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) // GPU_SHARE


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not memory enough, on whatever device."""
    texts = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)
