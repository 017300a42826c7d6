import json
import shutil
from pathlib import Path

import pytest

from kdrec.deploy import artefact
from kdrec.errors import InputError


def make(folder: Path, content: str = "model", force: bool = False) -> Path:
    with artefact.new_folder(folder, force) as place:
        (place / "model.bin").write_text(content)
        artefact.write_manifest(place, {"kind": "onnx"})
    return folder


def test_written_and_checked(tmp_path: Path) -> None:
    manifest = artefact.check(make(tmp_path / "a" / "export"))
    assert manifest["format"] == 1
    assert manifest["files"]["model.bin"]["bytes"] == 5
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["export"]


def test_force_replaces_an_export_and_nothing_else(tmp_path: Path) -> None:
    export = make(tmp_path / "export")
    with pytest.raises(InputError, match="export exists; name another --output, or replace it with --force"):
        make(export)
    assert artefact.check(make(export, "other", force=True))["files"]["model.bin"]["sha256"].startswith("d9298a1")
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "text").write_text("years of work")
    with pytest.raises(InputError, match="is no export of kdrec, so --force leaves it"):
        make(other, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "thesis"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), InputError("no"), KeyboardInterrupt()])
def test_what_fails_leaves_all_as_it_was(fault: BaseException, force: bool, tmp_path: Path) -> None:
    if force:
        make(tmp_path / "export", "old")

    def stop_halfway() -> None:
        with artefact.new_folder(tmp_path / "export", force) as place:
            (place / "model.bin").write_text("half")
            raise fault

    with pytest.raises((InputError, KeyboardInterrupt)) as error:
        stop_halfway()
    if isinstance(fault, OSError):
        assert "export cannot be written (No space left on device); nothing was kept" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == (["export"] if force else [])
    if force:
        assert (tmp_path / "export" / "model.bin").read_text() == "old"


def test_a_failed_rename_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "export", "old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.startswith(".") and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match="Input/output error"):
        make(tmp_path / "export", "new", force=True)
    assert (tmp_path / "export" / "model.bin").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make(tmp_path / "file" / "export")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder), "is no export of kdrec"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"), "manifest.json is damaged"),
        (lambda folder: say(folder, format=2), "has format 2 where this kdrec reads 1"),
        (lambda folder: say(folder, files={"model.bin": {}}), "manifest.json is damaged"),
        (lambda folder: say(folder, files={"../model": {"sha256": ""}}), "names the part '../model'"),
        (lambda folder: say(folder, files={"x" * 300: {"sha256": ""}}), "is missing; make the export again"),
        (lambda folder: (folder / "model.bin").unlink(), "is incomplete: model.bin is missing"),
        (lambda folder: (folder / "model.bin").write_text("other"), "model.bin is not what was exported"),
        (lambda folder: (folder / "model.bin").write_text(""), "model.bin is not what was exported"),
    ],
)
def test_a_damaged_export(damage, sentence: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "export")
    damage(folder)
    with pytest.raises(InputError) as error:
        artefact.check(folder)
    assert sentence in str(error.value)


def say(folder: Path, **what: object) -> None:
    """Change what the manifest says."""
    path = folder / artefact.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | what))
