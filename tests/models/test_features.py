from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.deepfm import DeepFM
from kdrec.models.features import Features, encode
from tests.generated import content_of
from tests.models.clicking import ITEM_FIELDS, TRAIN, USER_FIELDS, bound


def active(features: Features, num_fields: int) -> list[list[list[int]]]:
    """Return the active features of each entity by field."""
    bags = [bag.tolist() for bag in torch.tensor_split(features.indices, features.offsets[1:-1])]
    return [bags[start : start + num_fields] for start in range(0, len(bags), num_fields)]


def test_a_table_by_heart() -> None:
    assert TRAIN.user_features is not None
    assert TRAIN.item_features is not None
    users, items = encode(TRAIN.user_features), encode(TRAIN.item_features)
    assert active(users, 2) == USER_FIELDS
    assert users.fields.tolist() == [0, 0, 1, 1]
    assert active(items, 1) == ITEM_FIELDS
    assert items.fields.tolist() == [0, 0]


def test_numbers_fall_into_buckets_of_equal_size() -> None:
    values = np.random.default_rng(0).permutation(1000) ** 2
    found = encode(pd.DataFrame({"number": values}), num_buckets=5)
    expected = np.argsort(np.argsort(values)) // 200
    assert found.indices.tolist() == expected.tolist()


def test_few_numbers_are_a_bucket_each_and_a_missing_one_is_none() -> None:
    found = encode(pd.DataFrame({"number": [3.0, np.nan, 1.0, 1.0, 2.0, np.inf]}))
    assert active(found, 1) == [[[2]], [[]], [[0]], [[0]], [[1]], [[]]]
    assert active(encode(pd.DataFrame({"flag": [True, False, True]})), 1) == [[[1]], [[0]], [[1]]]
    missing = pd.Series([4, None], dtype="Int64")
    assert active(encode(pd.DataFrame({"number": missing})), 1) == [[[0]], [[]]]


def test_text_is_split_stripped_and_counted_by_entity() -> None:
    texts = ["b| a", "a|a|", None, "", "c|c|c", " |b"]
    table = pd.DataFrame({"text": texts}, index=[7, 7, 1, 0, 3, 9])  # whatever its index
    assert active(encode(table, 2), 1) == [[[0, 1]], [[0]], [[]], [[]], [[]], [[1]]]
    assert encode(table, 1).fields.tolist() == [0, 0, 0]


def test_columns_without_features_are_left_out() -> None:
    table = pd.DataFrame({"unique": list("abc"), "kind": list("xxy"), "nothing": [np.nan] * 3})
    found = encode(table, 2)
    assert active(found, 1) == [[[0]], [[0]], [[]]]
    assert encode(table[["unique"]], 2).offsets.tolist() == [0]


def test_data_without_features_is_refused() -> None:
    bare = replace(TRAIN, user_features=None, item_features=None)
    with pytest.raises(InputError, match="DeepFM reads features of users or items and this data has none; take data"):
        DeepFM().bind(bare)


def test_features_that_nobody_shares_are_refused() -> None:
    with pytest.raises(InputError, match="100 of them never share one; lower min_frequency"):
        DeepFM(min_frequency=100).bind(replace(TRAIN, user_features=TRAIN.user_features[["job"]]))  # type: ignore[index]


def test_a_file_rebuilds_the_tables_without_the_data(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = bound(DeepFM(3)).float()
    content = content_of(model, TRAIN)
    torch.save(content, tmp_path / "model.ckpt")
    again = checkpoint.restore(tmp_path / "model.ckpt")
    assert torch.equal(again.score_all(torch.arange(5)), model.score_all(torch.arange(5)))
    assert (again.num_features("user"), again.num_fields("user")) == (4, 2)


def test_tables_of_the_right_size_stay_the_same_objects() -> None:
    """An optimizer may hold them already when a run is resumed."""
    model = bound(DeepFM(3))
    before = list(model.parameters())
    model.load_state_dict(bound(DeepFM(3)).state_dict())
    assert all(one is other for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "damaged", "complaint"),
    [
        ("user_feature_indices", lambda old: old + 1, "its features are not those of its users"),
        ("item_feature_indices", lambda old: old - 1, "its features are not those of its items"),
        ("item_feature_offsets", lambda old: old.flip(0), "its features are not those of its items"),
        ("item_feature_offsets", lambda old: old[:-1], "its features are not those of its items|cannot be rebuilt"),
        ("user_feature_fields", lambda old: old[:2], "cannot be rebuilt"),
        ("user_feature_offsets", lambda old: old.float(), "cannot be rebuilt|its features are not"),
    ],
)
def test_damaged_features_are_refused(tmp_path, name, damaged, complaint) -> None:  # type: ignore[no-untyped-def]
    content = content_of(bound(DeepFM(3)).float(), TRAIN)
    key = checkpoint.PREFIX + name
    content["state_dict"][key] = damaged(content["state_dict"][key])
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=complaint):
        checkpoint.restore(tmp_path / "model.ckpt")
