import numpy as np
import pytest
import torch

from kdrec.data.base import UserLoader
from kdrec.data.interactions import Interactions
from kdrec.data.splits import LeaveOneOut, RandomRatio
from kdrec.errors import InputError
from tests.generated import GeneratedDataModule

USERS = np.array([3, 4, 6, 8, 9, 11, 15])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_every_user_once_over_ranks(num_ranks: int, batch_size: int) -> None:
    seen = []
    for rank in range(num_ranks):
        loader = UserLoader(USERS, batch_size, rank, num_ranks)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(len(batch) <= batch_size for batch in batches)
        assert all(len(batch) for batch in batches[1:])
        seen += torch.cat(batches).tolist()
    assert sorted(seen) == USERS.tolist()


def test_batches_of_one_rank() -> None:
    assert [batch.tolist() for batch in UserLoader(USERS, 3)] == [[3, 4, 6], [8, 9, 11], [15]]
    assert [batch.tolist() for batch in UserLoader(USERS, 3, rank=1, num_ranks=2)] == [[3, 9, 11], [15]]


def test_empty_rank_takes_part() -> None:
    loader = UserLoader(USERS[:2], 5, rank=2, num_ranks=3)
    batches = list(loader)
    assert len(loader) == len(batches) == 1
    assert batches[0].shape == (0,)
    assert batches[0].dtype == torch.int64


def test_every_iteration_starts_anew() -> None:
    loader = UserLoader(USERS, 3)
    assert [batch.tolist() for batch in loader] == [batch.tolist() for batch in loader]


def test_batches_do_not_share_memory_with_the_data() -> None:
    users = USERS.copy()
    next(iter(UserLoader(users, 3))).zero_()
    assert users.tolist() == USERS.tolist()


@pytest.mark.parametrize("option", ["batch_size", "num_negatives", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_bad_sizes(option: str, value: int) -> None:
    with pytest.raises(InputError, match=f"GeneratedDataModule: {option} is {value}; it must be at least 1"):
        GeneratedDataModule(**{option: value})  # type: ignore[arg-type]


def test_protocol() -> None:
    assert GeneratedDataModule().protocol == "generated/leave-one-out-time-min3"
    assert GeneratedDataModule(splitter=RandomRatio()).protocol == "generated/random-0.1-0.1-seed0-min10"


def test_split_is_the_splitters(interactions: Interactions) -> None:
    splitter = LeaveOneOut("random", seed=4)
    data, expected = GeneratedDataModule(splitter=splitter), splitter(interactions)
    assert data.split.train.digest == expected.train.digest
    assert data.split.valid.digest == expected.valid.digest
    assert data.split.test.digest == expected.test.digest
    assert data.split.train.digest != GeneratedDataModule().split.train.digest


def test_loaded_and_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = GeneratedDataModule(), []
    load = data.load
    monkeypatch.setattr(data, "load", lambda: calls.append(1) or load())
    data.prepare_data()
    data.setup("fit")
    split = data.split
    data.prepare_data()
    data.setup("test")
    assert data.split is split
    assert calls == [1]


def test_works_without_prepare_data() -> None:
    assert len(GeneratedDataModule().split.train) == 182


def test_loaders() -> None:
    data = GeneratedDataModule(batch_size=50, num_negatives=3, eval_batch_size=8)
    batches = list(data.train_dataloader())
    assert [tuple(batch.negatives.shape) for batch in batches] == [(50, 3), (50, 3), (50, 3), (32, 3)]
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert [len(users) for users in loader] == [8, 8, 8, 6]
        assert torch.cat(list(loader)).tolist() == list(range(30))


def test_only_users_with_something_held_out() -> None:
    data = GeneratedDataModule()
    everyone = data.split
    some = everyone.valid.subset(np.isin(everyone.valid.users, [2, 5, 7]))
    data._split = type(everyone)(everyone.train, some, everyone.test)
    assert torch.cat(list(data.val_dataloader())).tolist() == [2, 5, 7]
    assert len(torch.cat(list(data.test_dataloader()))) == 30


def test_training_order_follows_the_global_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = GeneratedDataModule()

    def order(seed: str | None) -> list[int]:
        if seed is None:
            monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
        else:
            monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        return next(iter(data.train_dataloader())).users.tolist()

    assert order("7") == order("7")
    assert order("7") != order("8")
    assert order(None) == order("0")
