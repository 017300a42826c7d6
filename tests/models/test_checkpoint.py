import hashlib
import json
import pickle
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kdrec.data.base import InteractionDataModule
from kdrec.data.interactions import Interactions
from kdrec.data.movielens import MovieLens100K
from kdrec.data.splits import LeaveOneOut, RandomRatio, Split
from kdrec.deploy.dataset import data_of
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models import section as section_of
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.checkpoint import digest, read, restore
from kdrec.models.described import as_config, require_known_classes
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from kdrec.models.section import describe
from kdrec.models.texts import unpack
from tests.generated import GeneratedDataModule, content_of

MODELS = [BPR(embedding_dim=6), NCF(embedding_dim=8, num_layers=2, dropout=0.3), Popularity()]


class Doubled(BPR):
    """An architecture from outside kdrec, in a module that is imported already."""


@pytest.fixture
def content(split: Split) -> dict[str, Any]:
    torch.manual_seed(0)
    model = BPR(embedding_dim=6)
    model.bind(split.train)
    return content_of(model, split.train)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


# Configurations


def rebuilt(config: dict[str, Any]) -> object:
    """Make an object from its configuration, as jsonargparse does."""
    module, _, name = config["class_path"].rpartition(".")
    arguments = {
        key: rebuilt(value) if isinstance(value, dict) and "class_path" in value else value
        for key, value in config["init_args"].items()
    }
    return getattr(sys.modules[module], name)(**arguments)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_model_config_round_trip(model: Recommender) -> None:
    config = as_config(model)
    copy = rebuilt(config)
    assert type(copy) is type(model)
    assert as_config(copy) == config
    assert json.loads(json.dumps(config)) == config


def test_model_config() -> None:
    assert as_config(NCF(embedding_dim=8, num_layers=3, dropout=0.25)) == {
        "class_path": "kdrec.models.ncf.NCF",
        "init_args": {"embedding_dim": 8, "num_layers": 3, "dropout": 0.25, "min_width": 1, "init_std": 0.1},
    }
    assert as_config(Popularity()) == {"class_path": "kdrec.models.popularity.Popularity", "init_args": {}}


def test_data_config_round_trip() -> None:
    data = GeneratedDataModule(num_users=9, splitter=LeaveOneOut("random", seed=4), batch_size=32, root="some/where")
    config = as_config(data)
    assert config["init_args"]["root"] == "some/where"
    assert config["init_args"]["splitter"] == {
        "class_path": "kdrec.data.splits.LeaveOneOut",
        "init_args": {"order": "random", "seed": 4, "min_interactions": 3, "num_users": None},
    }
    copy = rebuilt(config)
    assert isinstance(copy, GeneratedDataModule)
    assert as_config(copy) == config
    assert copy.protocol == data.protocol
    assert copy.split.train.digest == data.split.train.digest


def test_nested_lists_and_paths() -> None:
    class Both:
        def __init__(self, parts: list, folder: Path) -> None:
            self.parts = parts
            self.folder = folder

    config = as_config(Both([RandomRatio(), (1, "a", None)], Path("a/b")))
    assert config["init_args"] == {"parts": [as_config(RandomRatio()), [1, "a", None]], "folder": "a/b"}


def test_keyword_only_arguments() -> None:
    class Wide:
        def __init__(self, *, width: int) -> None:
            self.width = width

    assert as_config(Wide(width=3))["init_args"] == {"width": 3}


def test_class_without_arguments() -> None:
    class Plain:
        pass

    assert as_config(Plain())["init_args"] == {}


# Round trips


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_same_scores_after_restore(model: Recommender, split: Split, path: Path) -> None:
    torch.manual_seed(0)
    model.bind(split.train)
    torch.save(content_of(model, split.train), path)
    copy = restore(path)
    assert type(copy) is type(model)
    assert not copy.training
    users = torch.arange(30)
    ours, theirs = model.eval().score_all(users), copy.score_all(users)
    assert ours.std() > 0
    assert torch.equal(ours, theirs)
    assert torch.equal(ours.topk(10).indices, theirs.topk(10).indices)
    assert as_config(copy) == as_config(model)


def test_restore_from_what_was_read(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    loaded = read(path)
    path.unlink()
    copy = restore(path, loaded)
    assert torch.equal(copy.state_dict()["users.weight"], content["state_dict"]["recommender.users.weight"])


def test_other_parts_of_the_file_are_left_alone(content: dict[str, Any], path: Path) -> None:
    """Throw-away parts of a distiller are in the file beside the model's weights."""
    content["state_dict"]["distiller.projector.weight"] = torch.ones(3)
    content["optimizer_states"] = [{"state": {}}]
    torch.save(content, path)
    assert set(restore(path).state_dict()) == {"users.weight", "items.weight"}


def test_class_that_is_imported_already(split: Split, path: Path) -> None:
    model = Doubled(embedding_dim=2)
    model.bind(split.train)
    torch.save(content_of(model, split.train), path)
    assert type(restore(path)) is Doubled


def test_description(split: Split, content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    section, train = read(path)["kdrec"], split.train
    assert section["format"] == section_of.FORMAT
    assert (section["num_users"], section["num_items"]) == (30, 40)
    assert section["user_ids"] == [str(user + 101) for user in range(30)]
    assert section["item_ids"] == [str(item + 501) for item in range(40)]
    assert section["item_titles"][3] == "Film 3 (1953)"
    assert section["item_labels"] == {"name": "genres", "values": [f"Genre{item % 4}" for item in range(40)]}
    assert section["data_digest"] == train.digest
    assert set(section["versions"]) == {"kdrec", "torch", "lightning", "numpy", "python"}
    offsets, items = section["seen"]["offsets"], section["seen"]["items"]
    for user in range(30):
        seen = items[offsets[user] : offsets[user + 1]].tolist()
        own = train.subset(train.users == user)
        assert seen == [item for _, item in sorted(zip(own.timestamps, own.items, strict=True))]


def test_description_of_what_was_held_out() -> None:
    """In time order if every part has times; else by item."""
    ids = np.array(["a", "b"]), np.array(["w", "x", "y", "z"])
    train = Interactions(np.array([1, 0]), np.array([3, 2]), *ids, timestamps=np.array([1, 7]))
    held_out = Interactions(np.array([0, 0]), np.array([3, 0]), *ids, timestamps=np.array([9, 8]))
    model = BPR(2)
    model.bind(train)
    for part, items in ((held_out, [2, 0, 3, 3]), (replace(held_out, timestamps=None), [0, 2, 3, 3])):
        section = describe(model, train, part)
        assert section["seen"]["offsets"].tolist() == [0, 3, 4]
        assert section["seen"]["items"].tolist() == items
        assert section["data_digest"] == train.digest


def test_description_without_titles() -> None:
    train = Interactions(np.array([0]), np.array([1]), np.array(["a"]), np.array(["x", "y"]))
    model = BPR(2)
    model.bind(train)
    assert describe(model, train)["item_titles"] is None
    assert describe(model, train)["item_labels"] is None


def test_long_labels_are_cut_between_two() -> None:
    features = pd.DataFrame({"year": [1, 2, 3], "tags": ["|".join(["abcd"] * 20), None, "x" * 61]})
    train = Interactions(
        np.array([0]), np.array([1]), np.array(["a"]), np.array(["x", "y", "z"]), item_features=features
    )
    model = BPR(2)
    model.bind(train)
    labels = describe(model, train)["item_labels"]
    assert labels == {"name": "tags", "values": ["|".join(["abcd"] * 12), "", "x" * 60]}


def test_description_is_a_copy(split: Split) -> None:
    model = BPR(2)
    model.bind(split.train)
    describe(model, split.train)["seen"]["items"].zero_()
    assert split.train.csr[1].any()


def test_weights_that_changed_on_the_disk_are_refused(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    whole = bytearray(path.read_bytes())
    weights = content["state_dict"]["recommender.items.weight"].numpy().tobytes()
    start = whole.index(weights)
    whole[start : start + 8] = bytes(8)
    path.write_bytes(whole)
    with pytest.raises(InputError, match="cut off, damaged or of another program"):
        read(path)


def test_digest(path: Path) -> None:
    path.write_bytes(b"content")
    assert digest(path) == hashlib.sha256(b"content").hexdigest()


# Files that are none


def refused(path: Path, message: str) -> None:
    for reader in (read, restore):
        with pytest.raises(InputError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file(path: Path) -> None:
    refused(path, "There is no checkpoint .*model.ckpt; `kdrec fit` makes one")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; name a checkpoint in it")


def test_cut_off(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    whole = path.read_bytes()
    for length in np.random.default_rng(0).integers(1, len(whole), 10):
        path.write_bytes(whole[:length])
        refused(path, "make it again with `kdrec fit`")
    path.write_bytes(whole)
    read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"Not a checkpoint.\n" * 50, b"\x80", b"\x80\x02.", b"PK\x03\x04" + bytes(200), bytes(1000)],
    ids=["empty", "text", "pickle start", "pickle of nothing", "zip start", "zeros"],
)
def test_foreign_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    refused(path, "make it again with `kdrec fit`")


@pytest.mark.parametrize(
    "foreign",
    [
        {"state_dict": {"weight": torch.ones(2)}},
        {"kdrec": {"format": 1}},
        {"kdrec": "yes", "state_dict": {}},
        {"kdrec": {"format": 1}, "state_dict": [1]},
        [1, 2, 3],
        torch.ones(3),
        "text",
        None,
    ],
    ids=["other program", "no weights", "section is text", "weights are a list", "list", "tensor", "text", "nothing"],
)
def test_foreign_torch_file(foreign: object, path: Path) -> None:
    torch.save(foreign, path)
    refused(path, "was not written by kdrec")


@pytest.mark.parametrize("number", [0, 3, "1", None])
def test_other_format(content: dict[str, Any], path: Path, number: object) -> None:
    content["kdrec"]["format"] = number
    torch.save(content, path)
    refused(path, f"has format {number} where this kdrec reads 1 and 2")


# Files that are evil


class Evil:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("kind", ["raw pickle", "torch file", "torch file of old"])
def test_nothing_in_a_file_is_run(content: dict[str, Any], path: Path, tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    content["kdrec"]["seed"] = Evil(trace)
    if kind == "raw pickle":
        path.write_bytes(pickle.dumps({"kdrec": {"format": 1}, "state_dict": {}, "evil": Evil(trace)}))
        pickle.loads(path.read_bytes())
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch file")
        torch.load(path, weights_only=False)
    assert trace.exists()  # the attack works on who is careless
    trace.unlink()
    refused(path, "nothing in it was run|cannot be read as a checkpoint")
    assert not trace.exists()


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module on the path that leaves a file behind if it is imported; return that file."""
    trace = tmp_path / "trace"
    (tmp_path / "kdrec_trap.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Model: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return trace


def test_restoring_draws_no_random_numbers(content: dict[str, Any], path: Path) -> None:
    torch.save(content, path)
    before = torch.get_rng_state()
    restore(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_class_from_elsewhere(content: dict[str, Any], path: Path, trap: Path) -> None:
    content["kdrec"]["model"] = {"class_path": "kdrec_trap.Model", "init_args": {}}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"kdrec_trap\.Model"):
        restore(path)
    assert not trap.exists()
    assert "kdrec_trap" not in sys.modules


@pytest.mark.parametrize(
    "hidden",
    [
        {"splitter": {"class_path": "kdrec_trap.Model"}},
        {"splitter": {"class_path": "kdrec.data.splits.LeaveOneOut", "init_args": {"seed": "kdrec_trap.Model"}}},
        {"parts": [1, {"class_path": "kdrec_trap.Model"}]},
        {"parts": [{"deeper": [[{"class_path": "kdrec_trap.Model"}]]}]},
        {"splitter": "kdrec_trap.Model"},
        {"splitter": '{"class_path": "kdrec_trap.Model"}'},
        {"splitter": "trap.yaml"},
    ],
    ids=["nested", "deep", "in a list", "in lists", "as text", "as text with braces", "as a file"],
)
def test_class_from_elsewhere_below(hidden: dict[str, Any], trap: Path) -> None:
    """Wherever the command line would take it for a class, and import its module."""
    with pytest.raises(InputError, match=r"my\.ckpt"):
        require_known_classes(as_config(MovieLens100K()) | {"init_args": hidden}, "my.ckpt", MovieLens100K)
    assert not trap.exists()


def test_known_classes_pass() -> None:
    require_known_classes(as_config(BPR()), "my.ckpt", Recommender)
    config = as_config(GeneratedDataModule(root="my.data", splitter=LeaveOneOut("random")))
    require_known_classes(config, "my.ckpt", InteractionDataModule)


@pytest.mark.parametrize(
    "class_path",
    [
        "kdrec.models.bpr.Nothing", "kdrec.models.nothing.BPR", "kdrec.data.splits.LeaveOneOut", "kdrec.models.bpr.nn",
        "kdrec.models.base.Recommender", "kdrec.models.checkpoint.read", "subprocess.Popen", "builtins.eval",
        "BPR", "kdrec", "", ".", 5, None,
    ],
)  # fmt: skip
def test_class_that_is_no_recommender(content: dict[str, Any], path: Path, class_path: object) -> None:
    content["kdrec"]["model"]["class_path"] = class_path
    torch.save(content, path)
    with pytest.raises(InputError):
        restore(path)


@pytest.mark.parametrize("name", ["data.splits.LeaveOneOut", "models.bpr.nn", "models.checkpoint.read"])
def test_what_is_no_recommender_is_not_called(content: dict[str, Any], path: Path, name: str) -> None:
    content["kdrec"]["model"]["class_path"] = f"kdrec.{name}"
    torch.save(content, path)
    with pytest.raises(InputError, match=rf"(is|no class) kdrec\.{name}|kdrec\.{name} is not a Recommender"):
        restore(path)


@pytest.mark.parametrize(
    ("part", "config"),
    [
        ("model", {"class_path": "kdrec.data.splits.LeaveOneOut"}),
        ("model", {"class_path": "threading.Thread", "init_args": {"daemon": True}}),
        ("data", {"class_path": "threading.Thread", "init_args": {"daemon": True}}),
        ("data", {"class_path": "kdrec.models.bpr.BPR"}),
        ("data", {"class_path": "kdrec.data.movielens.MovieLens100K",
                  "init_args": {"splitter": {"class_path": "threading.Thread"}}}),
        ("data", {"class_path": "kdrec.data.movielens.MovieLens100K",
                  "init_args": {"batch_size": {"class_path": "kdrec.data.splits.LeaveOneOut"}}}),
        ("data", {"class_path": "kdrec.data.movielens.MovieLens100K", "init_args": {"batch_size": torch.ones(2)}}),
        ("data", {"class_path": "kdrec.data.base.InteractionDataModule"}),
        ("data", {"class_path": "kdrec.data.movielens.MovieLensDataModule"}),
    ],
)  # fmt: skip
def test_a_class_of_another_kind_is_not_made(
    content: dict[str, Any], path: Path, part: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is imported already, nor in the place of a splitter."""
    monkeypatch.setattr("threading.Thread.__init__", lambda *_, **__: pytest.fail("it was made"))
    content["kdrec"][part] = config
    torch.save(content, path)
    with pytest.raises(InputError, match=r"model\.ckpt is damaged|data module of .*model\.ckpt cannot be made"):
        restore(path) if part == "model" else data_of(path, read(path)["kdrec"])


def test_classes_in_classes_without_end(content: dict[str, Any], path: Path) -> None:
    config = content["kdrec"]["model"]
    for _ in range(20):
        config = {"class_path": "kdrec.models.ensemble.Ensemble", "init_args": {"checkpoints": [], "members": [config]}}
    content["kdrec"]["model"] = config
    torch.save(content, path)
    with pytest.raises(InputError, match="does not say its classes as class_path and init_args"):
        restore(path)


# Files that would fill the memory


def test_a_file_that_is_packed_is_not_unpacked(content: dict[str, Any], path: Path) -> None:
    """torch packs nothing; a few kilobytes of zeros may be gigabytes."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in parts.items():
            packed.writestr(name, data)
    refused(path, "cut off, damaged or of another program")


def test_tables_larger_than_the_file(content: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number, repeated: torch would make a table of it that is as large as it says."""
    content["kdrec"]["model"]["init_args"]["embedding_dim"] = 10**9
    for side, rows in (("users", 30), ("items", 40)):
        content["state_dict"][f"recommender.{side}.weight"] = torch.zeros(1, 1).expand(rows, 10**9)
    torch.save(content, path)
    with pytest.raises(InputError, match=r"its tables take 280000000000 bytes, and it holds 8"):
        restore(path)


# Files whose parts do not fit


def test_weights_that_are_no_numbers(content: dict[str, Any], path: Path) -> None:
    content["state_dict"]["recommender.items.weight"][3] = torch.nan
    torch.save(content, path)
    with pytest.raises(InputError, match=r"holds weights that are no finite numbers; its training diverged"):
        restore(path)


def test_missing_weights(content: dict[str, Any], path: Path) -> None:
    del content["state_dict"]["recommender.items.weight"]
    torch.save(content, path)
    with pytest.raises(InputError, match=r"cannot be rebuilt: .*items\.weight.*use the kdrec version that wrote it"):
        restore(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_items": 41},
        {"num_items": "many"},
        {"num_users": None},
        {"num_users": -1},
        {"num_users": float("inf")},
        {"num_users": float("nan")},
        {"num_users": 10**15},
        {"model": None},
        {"model": {}},
        {"model": "kdrec.models.bpr.BPR"},
        {"model": {"class_path": "kdrec.models.bpr.BPR", "init_args": {"width": 6}}},
        {"model": {"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 0}}},
        {"model": {"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 7}}},
        {"model": {"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": "6"}}},
        {"model": {"class_path": "kdrec.models.bpr.BPR", "init_args": [6]}},
        {"user_ids": []},
        {"item_ids": None},
        {"item_titles": ["one"]},
        {"item_labels": {"name": "genres", "values": []}},
        {"seen": {}},
        {"user_ids": [5] * 30},
        {"user_ids": [["a"]] * 30},
        {"item_ids": tuple("x" * 40)},
        {"item_titles": ["\ud800"] * 40},
        {"item_titles": [None] * 40},
        {"item_labels": {"values": ["a"] * 40}},
        {"item_labels": 5},
        {"seen": {"offsets": torch.zeros(31), "items": torch.zeros(0)}},
        {"evaluation": {"cutoffs": torch.ones(2)}},
        {"evaluation": {"cutoffs": 5}},
        {"evaluation": {"num_candidates": "all"}},
        {"metrics": []},
        {"epochs": "three"},
        {"data": None},
        {"seen": {"offsets": torch.tensor([0, 1]), "items": torch.tensor([0])}},
        {"num_items": 41, "versions": None},
        {"num_items": 41, "versions": ["1.0"]},
    ],
    ids=str,
)
def test_section_does_not_fit(content: dict[str, Any], path: Path, changes: dict[str, Any]) -> None:
    content["kdrec"] |= changes
    torch.save(content, path)
    with pytest.raises(InputError) as caught:
        restore(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model", "num_users", "num_items"])
def test_section_is_incomplete(content: dict[str, Any], path: Path, key: str) -> None:
    del content["kdrec"][key]
    torch.save(content, path)
    with pytest.raises(InputError, match=key):
        restore(path)


@pytest.mark.parametrize("value", [5, "weights", None])
def test_weight_is_no_tensor(content: dict[str, Any], path: Path, value: object) -> None:
    content["state_dict"]["recommender.users.weight"] = value
    torch.save(content, path)
    with pytest.raises(InputError, match="cannot be rebuilt"):
        restore(path)


def test_weight_name_is_no_text(content: dict[str, Any], path: Path) -> None:
    content["state_dict"][5] = torch.ones(2)
    torch.save(content, path)
    with pytest.raises(InputError):
        restore(path)


# Large catalogues


@pytest.mark.parametrize(
    "damage",
    [
        {"bytes": torch.full((98,), 255, dtype=torch.uint8)},
        {"bytes": torch.zeros(3, dtype=torch.uint8)},
        {"bytes": "abc"},
        {"ends": torch.arange(30).flip(0)},
        {"ends": torch.tensor(3)},
        {"ends": torch.zeros(0, dtype=torch.int64)},
        {"ends": None},
    ],
    ids=str,
)
def test_packed_ids_that_are_damaged(content: dict[str, Any], path: Path, damage: dict[str, Any]) -> None:
    content["kdrec"]["user_ids"] |= damage
    torch.save(content, path)
    with pytest.raises(InputError, match="its user_ids cannot be read"):
        read(path)


def test_files_of_format_1_are_read(content: dict[str, Any], path: Path) -> None:
    """Raw ids as lists, seen items as int64."""
    torch.save(content, path)
    new = read(path)["kdrec"]
    section = content["kdrec"]
    section |= {side: unpack(section[side]) for side in ("user_ids", "item_ids")} | {"format": 1}
    section["seen"]["items"] = section["seen"]["items"].long()
    torch.save(content, path)
    old = read(path)["kdrec"]
    assert all(old[side] == new[side] for side in ("user_ids", "item_ids"))
    assert torch.equal(old["seen"]["items"], new["seen"]["items"].long())
    assert isinstance(restore(path), BPR)


def test_histories_in_blocks_of_users(interactions: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    split = RandomRatio(0.2, 0.2, min_interactions=5)(interactions)
    model, parts = BPR(2), (split.train, split.valid, split.test)
    model.bind(split.train)
    whole = describe(model, *parts)["seen"]
    users, items, times = (np.concatenate([getattr(p, n) for p in parts]) for n in ("users", "items", "timestamps"))
    assert whole["items"].tolist() == items[np.lexsort((items, times, users))].tolist()
    assert whole["items"].dtype == torch.int32
    for together in (1, 7, 50):
        monkeypatch.setattr(section_of, "_SORTED_TOGETHER", together)
        seen = describe(model, *parts)["seen"]
        assert torch.equal(seen["items"], whole["items"])
        assert torch.equal(seen["offsets"], whole["offsets"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"init_args": {("embedding_dim",): 8}}, "does not say its classes"),
        ({("more",): 8}, "does not say its classes"),
        ({"init_args": {"embedding_dim": [8]}}, "takes no list as embedding_dim"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused(config: dict[Any, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_known_classes({"class_path": "kdrec.models.bpr.BPR", **config}, "some.ckpt", Recommender)


def test_a_number_is_refused_where_a_class_is_taken() -> None:
    said = {"class_path": "kdrec.data.citeulike.CiteULike", "init_args": {"splitter": 5}}
    with pytest.raises(InputError, match="takes no number as splitter"):
        require_known_classes(said, "some.ckpt", InteractionDataModule)


def test_tensors_where_a_plain_value_belongs(content: dict[str, Any], path: Path) -> None:
    torch.save(content | {"kdrec": content["kdrec"] | {"format": torch.ones(2)}}, path)
    with pytest.raises(InputError, match="has format tensor"):
        checkpoint.read(path)
    seen = content["kdrec"]["seen"] | {"timed": torch.ones(2)}
    torch.save(content | {"kdrec": content["kdrec"] | {"seen": seen}}, path)
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.restore(path)
