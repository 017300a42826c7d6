from pathlib import Path

import pytest

from kdrec.documents import read_json, read_yaml, replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "document"


def test_read(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, {"b": null}]}')
    assert read_json(path) == read_yaml(path) == {"a": [1, {"b": None}]}
    path.write_text("a: &a [x]\nb: [*a, *a]")  # some aliases are nothing bad
    assert read_yaml(path) == {"a": ["x"], "b": [["x"], ["x"]]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b"\xff", "invalid start byte"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "4300 digits"),
        (b" " * (1 << 24) + b"1", "larger than 16777216 bytes"),
    ],
    ids=["cut", "empty", "no text", "deep", "long number", "large"],
)
def test_json_that_is_refused(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1", "expected ',' or ']'"),
        (b"\xff", "invalid start byte"),
        (b"[" * 3000, "nested too deeply"),
        (b"[" * 60 + b"]" * 60, "nested more than 50 levels deep"),
        (b"&a [*a]", "nested more than 50 levels deep"),
        (b"&a [*a, *a, *a]", "more than 100000 values"),
        (b"a: &a [x, x, x, x]\n" + b"".join(b"%c: &%c [*%c, *%c, *%c, *%c]\n" % (c + 1, c + 1, c, c, c, c)
                                            for c in range(97, 112)), "more than 100000 values"),
        (b"? [a]\n: 1", "unhashable"),
        (b"when: 2020-13-45", "month must be in 1..12"),
        (b"!!int ''", "."),
        (b"!!bool x", "x"),
        (b"!!timestamp x", "group"),
        (b"!!python/object/apply:os.system [touch up]", "could not determine a constructor"),
        (b"a: " + b"9" * 5000, "4300 digits"),
        (b" " * (1 << 18) + b"1", "larger than 262144 bytes"),
    ],
)  # fmt: skip
def test_yaml_that_is_refused(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_yaml(path)


def test_a_file_that_is_not_there(path: Path) -> None:
    for read in (read_json, read_yaml):
        with pytest.raises(OSError, match="No such file"):
            read(path)


def test_a_file_is_replaced_when_all_of_it_is_written_or_not_at_all(path: Path) -> None:
    for content in ("new", "newer"):
        with replacing(path) as part:
            part.write_text(content)
            assert not path.exists() or path.read_text() == "new"
        assert path.read_text() == content

    def stops_half_way() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stops_half_way()
    assert path.read_text() == "newer"
    assert list(path.parent.iterdir()) == [path]
