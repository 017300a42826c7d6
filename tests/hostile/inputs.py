"""Sound things, damaged: bytes that were flipped, cut, doubled or put in; values that are of another kind or size."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

TOKENS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n\r\n", b"\t", b'"', b'""', b"'", b",",
    b"|", b"\x1f", b"\x85", b"\x1b[2J", b"nan", b"inf", b"-1", b"0", b"1e999", b"0x1", b"1_0", b"9223372036854775808",
    b"9" * 400, b"9" * 5000, "٣".encode(), "²".encode(), b"[", b"]", b"{", b"}", b"[" * 3000, b'{"a":' * 3000, b"!!",
    b"&a [*a, *a]", b"*a", b"!!int ''", b"!!bool x", b"!!timestamp x", b"../", b"/etc/passwd", b"A" * 20_000,
)  # fmt: skip
TEXTS = (
    "", " ", "\x00", "a\nb", "\ud800", "\x1b[2J", "../../up", "/etc/passwd", ".", "..", "nan", "null", "1", "é" * 300,
    "x" * 20_000, "tests.hostile.trap.Trap", "os.system", "subprocess.Popen", "builtins.eval", "torch.nn.Linear",
    "kdrec.models.bpr.BPR", "kdrec.models.ncf.NCF", "kdrec.data.splits.LeaveOneOut", "{}", "!!python/object:os.system",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 5, 255, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**15, 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip


def damaged(*sound: bytes) -> st.SearchStrategy[bytes]:
    """Some of the sound ones with a few faults, some as they are, and some bytes that are nothing."""
    return st.one_of(_damaged(sound), _damaged(sound), _damaged(sound), st.sampled_from(sound), st.binary(max_size=200))


@st.composite
def _damaged(draw: Callable[..., Any], sound: Sequence[bytes]) -> bytes:
    content = draw(st.sampled_from(sound))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        part = content[start:end]
        match draw(st.sampled_from(["flip", "cut", "end", "double", "insert", "token", "token", "other", "copy"])):
            case "flip" if part:
                content = content[:start] + bytes([part[0] ^ (1 << draw(st.integers(0, 7)))]) + content[start + 1 :]
            case "cut":
                content = content[:start] + content[end:]
            case "end":
                content = content[:start]
            case "double":
                content = content[:end] + part * draw(st.integers(1, 3)) + content[end:]
            case "insert":
                content = content[:start] + draw(st.binary(max_size=8)) + content[start:]
            case "token":
                content = content[:start] + draw(st.sampled_from(TOKENS)) + content[end:]
            case "other":
                content = content[:start] + draw(st.sampled_from(sound))[start:]
            case "copy":
                place = draw(st.integers(0, len(content)))
                content = content[:place] + part + content[place:]
    return content


def values(*more: object) -> st.SearchStrategy[Any]:
    """Anything plain, the extremes first; ``more`` are taken as they are."""
    plain = st.one_of(
        st.sampled_from((None, True, False, *more)), st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.integers(),
        st.floats(), st.text(max_size=20),
    )  # fmt: skip
    return st.recursive(
        plain,
        lambda part: st.one_of(
            st.lists(part, max_size=4), st.dictionaries(st.text(max_size=5) | st.sampled_from(TEXTS), part, max_size=3)
        ),
        max_leaves=6,
    )


def mangled(sound: object, more: Sequence[object] = ()) -> st.SearchStrategy[Any]:
    """A nest of dicts and lists in which some places hold something else, or are gone, or stand under another name."""
    return _mangled(sound, values(*more))  # made once, since hypothesis looks over each new strategy


_names = st.text(max_size=8) | st.sampled_from(("class_path", 5, ""))
_ways = st.sampled_from(["put", "put", "put", "put", "remove", "rename", "wrap", "swap"])


@st.composite
def _mangled(draw: Callable[..., Any], sound: object, others: st.SearchStrategy[Any]) -> Any:
    tree = {"all": copy.deepcopy(sound)}
    for _ in range(draw(st.integers(1, 3))):
        owners = [*_nests(tree)]
        owner = draw(st.sampled_from(owners))
        key = draw(st.sampled_from([*owner] if isinstance(owner, dict) else range(len(owner))))
        match draw(_ways):
            case "put":
                owner[key] = copy.deepcopy(draw(others))  # which is changed in its turn
            case "remove" if owner is not tree:
                del owner[key]
            case "rename" if isinstance(owner, dict) and owner is not tree:
                owner[draw(_names)] = owner.pop(key)
            case "wrap":
                owner[key] = draw(st.sampled_from(([owner[key]], {"a": owner[key]}, [owner[key]] * 3)))
            case "swap":
                other = draw(st.sampled_from(owners))
                place = draw(st.sampled_from([*other] if isinstance(other, dict) else range(len(other))))
                owner[key] = copy.deepcopy(other[place])
    return tree["all"]


def _nests(tree: Any) -> Any:
    """Yield each dict and list that is not empty."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _nests(part)
