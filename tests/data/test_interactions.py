import numpy as np
import pandas as pd
import pytest

from kdrec.data.interactions import Interactions, RepeatedPair
from kdrec.errors import InputError

LOG = pd.DataFrame({"user": [9, 10, 9, 2], "item": ["b", "a", "c", "b"], "timestamp": [5, 6, 7, 8]})


def build(**changes: object) -> Interactions:
    arguments: dict = {
        "users": np.array([0, 0, 1]),
        "items": np.array([2, 1, 0]),
        "user_ids": np.array(["a", "b"]),
        "item_ids": np.array(["x", "y", "z"]),
    }
    return Interactions(**(arguments | changes))


def test_vocabularies_are_sorted() -> None:
    log = Interactions.from_frame(LOG)
    assert log.user_ids.tolist() == ["2", "9", "10"]  # by value: as text it would be 10, 2, 9
    assert log.item_ids.tolist() == ["a", "b", "c"]
    assert log.users.tolist() == [1, 2, 1, 0]
    assert log.items.tolist() == [1, 0, 2, 1]
    assert log.timestamps is not None
    assert log.timestamps.tolist() == [5, 6, 7, 8]
    assert log.users.dtype == log.items.dtype == np.int64


def test_text_ids_are_sorted_as_text() -> None:
    log = Interactions.from_frame(LOG.astype({"user": str}))
    assert log.user_ids.tolist() == ["10", "2", "9"]


def test_no_timestamps() -> None:
    log = Interactions.from_frame(LOG[["user", "item"]])
    assert log.timestamps is None
    assert log.subset(np.array([0])).timestamps is None


def test_sizes_and_counts() -> None:
    log = build(users=np.array([1, 1, 1]), items=np.array([2, 0, 1]))
    assert (len(log), log.num_users, log.num_items) == (3, 2, 3)
    assert log.user_counts.tolist() == [0, 3]  # user 0 has no pair and still has a place
    assert log.item_counts.tolist() == [1, 1, 1]


def test_csr_is_ascending_within_users() -> None:
    log = build(users=np.array([2, 0, 2, 0, 2]), items=np.array([1, 2, 0, 0, 2]), user_ids=np.array(list("abc")))
    offsets, items = log.csr
    assert offsets.tolist() == [0, 2, 2, 5]
    assert items.tolist() == [0, 2, 0, 1, 2]


def test_csr_against_sets(interactions: Interactions) -> None:
    offsets, items = interactions.csr
    for user in range(interactions.num_users):
        own = interactions.items[interactions.users == user].tolist()
        assert items[offsets[user] : offsets[user + 1]].tolist() == sorted(own)


def test_digest_ignores_row_order(interactions: Interactions) -> None:
    order = np.random.default_rng(0).permutation(len(interactions))
    assert not np.array_equal(order, np.arange(len(order)))
    assert interactions.subset(order).digest == interactions.digest
    assert Interactions.from_frame(LOG).digest == Interactions.from_frame(LOG.iloc[[3, 1, 0, 2]]).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"items": np.array([2, 0, 0])},
        {"users": np.array([0, 1, 1])},
        {"users": np.array([0, 0]), "items": np.array([2, 1])},
        {"user_ids": np.array(["a", "c"])},
        {"item_ids": np.array(["x", "y", "w"])},
        {"user_ids": np.array(["a", "b", "c"])},
        {"item_ids": np.array(["x", "y", "z", "w"])},
    ],
    ids=["item", "user", "row", "user id", "item id", "more users", "more items"],
)
def test_digest_notices(changes: dict) -> None:
    assert build(**changes).digest != build().digest


def test_digest_keeps_ids_apart() -> None:
    one, other = (build(user_ids=np.array(ids)) for ids in (["a\nb", "c"], ["a", "b\nc"]))
    assert one.digest != other.digest


def test_digest_ignores_the_integer_type() -> None:
    assert build(users=np.array([0, 0, 1], dtype=np.int32)).digest == build().digest


def test_subset_by_mask_and_by_index() -> None:
    log = build(timestamps=np.array([7, 8, 9]))
    for rows in (np.array([True, False, True]), np.array([0, 2])):
        part = log.subset(rows)
        assert part.users.tolist() == [0, 1]
        assert part.items.tolist() == [2, 0]
        assert part.timestamps is not None
        assert part.timestamps.tolist() == [7, 9]
        assert (part.num_users, part.num_items) == (2, 3)
    assert log.subset(np.zeros(3, dtype=bool)).user_counts.tolist() == [0, 0]


def test_with_min_interactions_renumbers() -> None:
    log = Interactions(
        users=np.array([0, 1, 1, 2, 2]),
        items=np.array([1, 0, 3, 3, 2]),
        user_ids=np.array(["u0", "u1", "u2"]),
        item_ids=np.array(["i0", "i1", "i2", "i3"]),
        timestamps=np.array([1, 2, 3, 4, 5]),
        item_titles=np.array(["A", "B", "C", "D"]),
        user_features=pd.DataFrame({"age": [30, 31, 32]}),
        item_features=pd.DataFrame({"year": [2000, 2001, 2002, 2003]}),
    )
    kept = log.with_min_interactions(2)  # u0 goes, and with it i1, which nobody else has
    assert kept.users.tolist() == [0, 0, 1, 1]
    assert kept.items.tolist() == [0, 2, 2, 1]
    assert kept.user_ids.tolist() == ["u1", "u2"]
    assert kept.item_ids.tolist() == ["i0", "i2", "i3"]
    assert kept.timestamps is not None
    assert kept.timestamps.tolist() == [2, 3, 4, 5]
    assert kept.item_titles is not None
    assert kept.item_titles.tolist() == ["A", "C", "D"]
    assert kept.user_features is not None
    assert kept.user_features.to_dict("list") == {"age": [31, 32]}
    assert kept.item_features is not None
    assert kept.item_features.to_dict("list") == {"year": [2000, 2002, 2003]}
    assert kept.item_features.index.tolist() == [0, 1, 2]


def test_with_min_interactions_nobody_left() -> None:
    with pytest.raises(InputError, match=r"No user has 3 interactions \(the most is 2\)"):
        build().with_min_interactions(3)


@pytest.mark.parametrize("name", ["users", "items", "timestamps"])
def test_columns_are_read_only(name: str) -> None:
    log = Interactions.from_frame(LOG)
    for table in (log, log.subset(np.array([0, 1])), log.with_min_interactions(1)):
        with pytest.raises(ValueError, match="read-only"):
            getattr(table, name)[0] = 1


def test_fields_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        build().users = np.array([1])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": np.array([0, 1])}, "items has 2 entries where users has 3"),
        ({"users": np.array([0, 1, 2])}, r"users spans 0\.\.2, outside 0\.\.1"),
        ({"items": np.array([-1, 1, 2])}, r"items spans -1\.\.2, outside 0\.\.2"),
        ({"timestamps": np.array([1])}, "timestamps has 1 rows where 3 are needed"),
        ({"item_titles": np.array(["A"])}, "item_titles has 1 rows where 3 are needed"),
        ({"user_features": pd.DataFrame({"age": [1]})}, "user_features has 1 rows where 2 are needed"),
        ({"item_features": pd.DataFrame({"year": [1]})}, "item_features has 1 rows where 3 are needed"),
    ],
)
def test_bad_columns(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_repeated_pair() -> None:
    with pytest.raises(InputError, match="user 9, item b occurs more than once"):
        Interactions.from_frame(pd.concat([LOG, LOG.iloc[[0]].assign(timestamp=99)]))


def test_tables_are_aligned_with_ids() -> None:
    log = Interactions.from_frame(
        LOG,
        item_titles=pd.Series({"c": "Cabaret", "a": "Alien", "z": "Zardoz"}),
        user_features=pd.DataFrame({"age": [10, 9, 2, 7]}, index=[10, 9, 2, 7]),
        item_features=pd.DataFrame({"year": [3, 2, 1]}, index=["c", "b", "a"]),
    )
    assert log.item_titles is not None
    assert log.item_titles.tolist() == ["Alien", "b", "Cabaret"]  # no title: its raw id
    assert log.user_features is not None
    assert log.user_features["age"].tolist() == [2, 9, 10]
    assert log.item_features is not None
    assert log.item_features["year"].tolist() == [1, 2, 3]


def test_missing_title_of_a_numbered_item() -> None:
    log = Interactions.from_frame(
        pd.DataFrame({"user": [1, 1], "item": [7, 8]}), item_titles=pd.Series(["Seven"], index=[7])
    )
    assert log.item_titles is not None
    assert log.item_titles.tolist() == ["Seven", "8"]


def test_repeated_title_row() -> None:
    with pytest.raises(InputError, match="b"):
        Interactions.from_frame(LOG, item_titles=pd.Series(["A", "B", "B2", "C"], index=list("abbc")))


def test_pairs_by_user_against_two_sorts() -> None:
    chance = np.random.default_rng(0)
    users, items = np.divmod(chance.permutation(50 * 70)[:900], 70)
    log = Interactions(users, items, np.arange(50).astype(str), np.arange(70).astype(str))
    order = np.lexsort((items, users))
    assert log.csr[1].tolist() == items[order].tolist()
    assert np.repeat(np.arange(50), np.diff(log.csr[0])).tolist() == users[order].tolist()
    assert log.csr[1].dtype == log.csr[0].dtype == np.int64
    assert log.users.tolist() == users.tolist()


def test_digest_stays_what_it_was() -> None:
    """Checkpoints of older versions hold it."""
    assert build().digest[:16] == "1e40591ad3438928"


def test_ids_as_categories() -> None:
    """They are numbered as the same ids in a plain column, whatever the order of the categories, and unused ones."""
    plain = Interactions.from_frame(LOG)
    for users, items in (([10, 2, 9], ["c", "b", "a"]), ([3, 9, 10, 99, 2], ["b", "zz", "c", "a"])):
        user, item = pd.CategoricalDtype(users), pd.CategoricalDtype(items)
        log = Interactions.from_frame(LOG.assign(user=LOG["user"].astype(user), item=LOG["item"].astype(item)))
        assert log.digest == plain.digest
        assert log.user_ids.tolist() == plain.user_ids.tolist()
        assert log.users.tolist() == plain.users.tolist()
        assert log.items.tolist() == plain.items.tolist()
    with pytest.raises(InputError, match="users spans -1"):
        Interactions.from_frame(LOG.assign(user=pd.Categorical.from_codes([0, -1, 0, 1], categories=[9, 2])))


def test_nobody_to_leave_out() -> None:
    """Then nothing is copied."""
    assert (log := build()).with_min_interactions(1) is log
    lonely = build(item_ids=np.array(["x", "y", "z", "nobody's"]))
    assert lonely.with_min_interactions(1).num_items == 3


def test_rows_of_a_repeated_pair() -> None:
    again = pd.concat([LOG, LOG.iloc[[1, 0]], LOG.iloc[[1]]], ignore_index=True)
    with pytest.raises(RepeatedPair) as caught:
        Interactions.from_frame(again)
    assert caught.value.rows.tolist() == [1, len(LOG), len(LOG) + 2]
