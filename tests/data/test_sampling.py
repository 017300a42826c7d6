from typing import Any

import numpy as np
import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch, NegativeSampler, OutsideSampler, TripleLoader
from kdrec.data.splits import Split
from kdrec.errors import InputError
from tests.generated import generate


def log(touched: list[list[int]], num_items: int) -> Interactions:
    users = np.repeat(np.arange(len(touched)), [len(items) for items in touched])
    items = np.array([item for items in touched for item in items], dtype=np.int64)
    return Interactions(users, items, np.arange(len(touched)).astype(str), np.arange(num_items).astype(str))


def draw(train: Interactions, users: list[int], num_negatives: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return NegativeSampler(train).draw(torch.tensor(users, dtype=torch.int64), num_negatives, generator)


def loader(train: Interactions, batch_size: int = 7, rank: int = 0, num_ranks: int = 1, **options: Any) -> TripleLoader:
    return TripleLoader(
        train, batch_size, **({"num_negatives": 2, "seed": 5} | options), rank=rank, num_ranks=num_ranks
    )


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def epoch(triples: TripleLoader, number: int = 0) -> Batch:
    triples.set_epoch(number)
    return joined(list(triples))


# Negatives


@pytest.mark.parametrize(
    "touched",
    [[0, 1, 2], [7, 8, 9], [0, 9], [1, 3, 5, 7], [], [4], [0, 1, 2, 3, 4, 5, 6, 7, 8], [9, 2, 5]],
    ids=["first", "last", "ends", "alternating", "nothing", "one", "all but one", "unsorted"],
)
def test_exactly_the_free_items(touched: list[int]) -> None:
    """A naive rejection sampler can return just these, each as often: 3,000 draws, deviation under sqrt(3000 / 10)."""
    train = log([[3], touched, [0, 1]], 10)
    counts = torch.bincount(draw(train, [1], 3000).flatten(), minlength=10)
    free = sorted(set(range(10)) - set(touched))
    assert counts.nonzero().flatten().tolist() == free
    assert (counts[free] - 3000 / len(free)).abs().max() < 5 * 300**0.5


def test_uniform_by_chi_square(interactions: Interactions) -> None:
    num_draws = 20_000
    for user in (0, 13, 29):
        own = set(interactions.items[interactions.users == user].tolist())
        free = sorted(set(range(40)) - own)
        counts = torch.bincount(draw(interactions, [user], num_draws).flatten(), minlength=40).double()
        assert counts[sorted(own)].sum() == 0
        expected = num_draws / len(free)
        statistic = ((counts[free] - expected) ** 2 / expected).sum()
        assert statistic < 70  # chi-square with at most 33 degrees of freedom: passed by chance once in 5,000


def test_like_rejection() -> None:
    """Frequencies of the vectorised sampler and of a rejection loop differ by noise only."""
    chance = np.random.default_rng(0)
    train = log([[0, 2, 3, 7], [1], [4, 5]], 8)
    touched = {0: {0, 2, 3, 7}, 1: {1}, 2: {4, 5}}
    naive = np.zeros((3, 8))
    for user, own in touched.items():
        for _ in range(4000):
            while (item := int(chance.integers(8))) in own:
                pass
            naive[user, item] += 1
    users = np.repeat([0, 1, 2], 4000)
    ours = np.zeros((3, 8))
    np.add.at(ours, (users, draw(train, users.tolist(), 1).numpy().ravel()), 1)
    assert ((ours > 0) == (naive > 0)).all()
    assert np.abs(ours - naive).max() < 5 * (2 * 1000) ** 0.5  # a cell is 1,000 at most, so the difference's deviation


def test_never_a_positive(interactions: Interactions) -> None:
    users = np.repeat(np.arange(30), 50).tolist()
    negatives = draw(interactions, users, 4)
    assert negatives.shape == (1500, 4)
    assert negatives.dtype == torch.int64
    assert negatives.min() >= 0
    assert negatives.max() < 40
    positives = set(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))
    assert not positives & {(user, item) for user, row in zip(users, negatives.tolist(), strict=True) for item in row}


@pytest.mark.parametrize("free", [0, 3, 5])
def test_one_free_item(free: int) -> None:
    train = log([[0, 1], [item for item in range(6) if item != free], [2]], 6)
    assert draw(train, [1] * 20, 3).unique().tolist() == [free]


def test_rows_follow_users() -> None:
    train = log([[0, 1, 2, 3], [1, 2, 3, 4], [0, 1, 3, 4]], 5)  # free: 4, 0, 2
    assert draw(train, [2, 0, 1, 1, 2], 2).tolist() == [[2, 2], [4, 4], [0, 0], [0, 0], [2, 2]]


def test_no_users() -> None:
    assert draw(log([[0]], 2), [], 3).shape == (0, 3)


def test_draws_are_seeded(interactions: Interactions) -> None:
    users = list(range(30))
    assert torch.equal(draw(interactions, users, 5, seed=1), draw(interactions, users, 5, seed=1))
    assert not torch.equal(draw(interactions, users, 5, seed=1), draw(interactions, users, 5, seed=2))


def test_user_who_touched_everything() -> None:
    train = log([[0], [0, 1, 2]], 3)
    with pytest.raises(InputError, match="User 1 has touched every item"):
        NegativeSampler(train)


# Triples


def test_every_positive_once(split: Split) -> None:
    batch = epoch(loader(split.train))
    drawn = sorted(zip(batch.users.tolist(), batch.positives.tolist(), strict=True))
    assert drawn == sorted(zip(split.train.users.tolist(), split.train.items.tolist(), strict=True))
    assert not np.array_equal(batch.users.numpy(), split.train.users)  # shuffled


def test_negatives_belong_to_the_user(split: Split) -> None:
    touched = set(zip(split.train.users.tolist(), split.train.items.tolist(), strict=True))
    batch = epoch(loader(split.train, num_negatives=3))
    assert batch.negatives.shape == (len(split.train), 3)
    rows = zip(batch.users.tolist(), batch.negatives.tolist(), strict=True)
    assert not touched & {(user, item) for user, row in rows for item in row}


@pytest.mark.parametrize("batch_size", [1, 7, 91, 182, 1000])
def test_batch_sizes(split: Split, batch_size: int) -> None:
    assert len(split.train) == 182  # of 242 pairs, two of each of 30 users are held out
    triples = loader(split.train, batch_size)
    sizes = [len(batch.users) for batch in triples]
    assert len(sizes) == len(triples) == -(-182 // batch_size)
    assert sum(sizes) == 182
    assert all(size == batch_size for size in sizes[:-1])


def test_fresh_every_epoch(split: Split) -> None:
    triples = loader(split.train)
    first, second = epoch(triples, 0), epoch(triples, 1)
    assert not torch.equal(first.users, second.users)
    draws = []
    for batch in (first, second):
        order = (batch.users * 40 + batch.positives).argsort()
        draws.append(batch.negatives[order])
    # of 182 x 2 negatives about one in 34 agrees by chance
    assert (draws[0] == draws[1]).float().mean() < 0.15


def test_an_epoch_can_be_repeated(split: Split) -> None:
    """So that a resumed run sees what an unbroken one sees, however often the loader was read before."""
    triples = loader(split.train)
    later = [epoch(triples, number) for number in range(4)][3]
    again = epoch(loader(split.train), 3)
    for one, other in zip(later, again, strict=True):
        assert torch.equal(one, other)


def test_lightning_can_announce_the_epoch(split: Split) -> None:
    triples = loader(split.train)
    triples.sampler.set_epoch(2)
    assert torch.equal(joined(list(triples)).negatives, epoch(loader(split.train), 2).negatives)


def test_seed_matters_and_global_state_does_not(split: Split) -> None:
    torch.manual_seed(1)
    one = epoch(loader(split.train, seed=5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = epoch(loader(split.train, seed=5))
    assert torch.equal(one.negatives, two.negatives)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one.users, epoch(loader(split.train, seed=6)).users)


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("batch_size", [8, 30, 60, 90])
def test_ranks_share_the_global_batch(split: Split, batch_size: int, num_ranks: int) -> None:
    whole = list(loader(split.train, batch_size * num_ranks))
    parts = [list(loader(split.train, batch_size, rank, num_ranks)) for rank in range(num_ranks)]
    assert {len(part) for part in parts} == {len(whole)}
    for expected, *pieces in zip(whole, *parts, strict=True):
        for one, other in zip(expected, joined(pieces), strict=True):
            assert torch.equal(one, other)
        sizes = [len(piece.users) for piece in pieces]
        assert max(sizes) - min(sizes) <= 1  # the last batch is divided evenly too
        assert max(sizes) <= batch_size


def test_fewer_positives_than_ranks() -> None:
    train = log([[0], [1]], 4)
    parts = [list(loader(train, 4, rank, 3)) for rank in range(3)]
    assert [[len(batch.users) for batch in part] for part in parts] == [[0], [1], [1]]


def test_batches_do_not_share_memory_with_the_data(split: Split) -> None:
    before = split.train.users.copy()
    for batch in loader(split.train):
        batch.users.zero_()
    assert np.array_equal(split.train.users, before)


def test_by_user_every_user_comes_once_with_any_of_their_items() -> None:
    train = generate(num_users=11, num_items=30)
    triples = loader(train, batch_size=4, samples="users")
    assert len(triples) == len(list(triples)) == 3
    seen: dict[int, set[int]] = {user: set() for user in range(11)}
    orders = set()
    for number in range(60):
        batch = epoch(triples, number)
        assert sorted(batch.users.tolist()) == list(range(11))
        orders.add(tuple(batch.users.tolist()))
        for user, item in zip(batch.users.tolist(), batch.positives.tolist(), strict=True):
            seen[user].add(item)
    own = {user: set(train.items[train.users == user].tolist()) for user in range(11)}
    assert seen == own, "every item has its turn, and no other"
    assert len(orders) == 60
    assert [*epoch(triples, 3).users] == [*epoch(triples, 3).users]


def test_by_user_the_ranks_share_what_one_process_sees() -> None:
    train = generate(num_users=11, num_items=30)
    whole = epoch(loader(train, batch_size=6, samples="users"), 2)
    parts = [list(loader(train, batch_size=3, rank=rank, num_ranks=2, samples="users")) for rank in (0, 1)]
    assert [len(part) for part in parts] == [2, 2]
    together = [user for batches in parts for batch in batches for user in batch.users.tolist()]
    assert sorted(together) == sorted(whole.users.tolist())


def test_histories_come_user_by_user_in_another_order_every_epoch() -> None:
    train = generate(num_users=11, num_items=30)
    triples = loader(train, batch_size=16, samples="histories")
    orders = set()
    for number in range(5):
        batch = epoch(triples, number)
        assert sorted(zip(batch.users.tolist(), batch.positives.tolist(), strict=True)) == sorted(
            zip(train.users.tolist(), train.items.tolist(), strict=True)
        )
        users = batch.users.unique_consecutive()
        assert len(users) == 11, "all pairs of a user stand together"
        orders.add((tuple(users.tolist()), tuple(batch.positives.tolist())))
    assert len(orders) == 5
    assert {len(part.users) for part in list(triples)[:-1]} == {16}


def test_blocks_of_an_epoch_change_nothing(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives are drawn for some batches at a time, and are the same as if they were drawn for all at once."""
    for options in ({"samples": "pairs"}, {"samples": "histories"}, {"samples": "users", "num_negatives": 3}):
        whole = list(loader(split.train, rank=1, num_ranks=2, **options))
        monkeypatch.setattr("kdrec.data.sampling._AT_ONCE", 20)
        blocks = list(loader(split.train, rank=1, num_ranks=2, **options))
        monkeypatch.undo()
        assert len(whole) == len(blocks)
        for one, other in zip(whole, blocks, strict=True):
            assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))


def test_what_a_row_does_not_hold_is_drawn_and_all_of_it() -> None:
    """Rows of very different lengths, empty ones among them, the first and the last too."""
    chance = np.random.default_rng(0)
    held = [np.sort(chance.permutation(200)[:length]) for length in (0, 1, 199, 3, 0, 64, 65, 127, 200, 0)]
    offsets = np.concatenate(([0], np.cumsum([len(columns) for columns in held])))
    sampler = OutsideSampler(offsets, np.concatenate(held), 200)
    drawn = sampler.draw(torch.arange(len(held)), 5000, torch.Generator().manual_seed(0))
    for columns, found in zip(held, drawn, strict=True):
        assert set(found.tolist()) == (set(range(200)) - set(columns.tolist()) or {-1})


def test_more_pairs_than_four_bytes_can_number() -> None:
    """Rows times columns need eight; two rows hold their first thousand columns."""
    columns, counts = 1 << 30, np.array([0, 1000, 0, 1000])
    held = np.concatenate([np.arange(count) for count in counts])
    sampler = OutsideSampler(np.concatenate(([0], counts.cumsum())), held, columns)
    drawn = sampler.draw(torch.arange(4), 500, torch.Generator().manual_seed(0))
    chance = torch.rand((4, 500), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    counts = torch.from_numpy(counts).unsqueeze(1)
    assert torch.equal(drawn, (chance * (columns - counts)).long() + counts)


def test_an_epoch_is_not_copied(split: Split) -> None:
    triples = loader(split.train)
    assert not [part for part in vars(triples).values() if isinstance(part, torch.Tensor | np.ndarray)]
