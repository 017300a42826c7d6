import numpy as np
import pandas as pd
import pytest

from kdrec.models.features import encode
from kdrec.models.tf_idf import tf_idf


def test_weights_follow_rarity() -> None:
    """Of 4 items a has 1 and b has 3: log(1 + 4 / 1), log(1 + 4 / 3); two fields of an item are one row."""
    table = pd.DataFrame({"tags": ["a|b", "b", "", "b"], "year": [None, None, 1999, None]})
    weights = tf_idf(encode(table, 1), 4)
    rare, common = np.log(5), np.log(7 / 3)
    assert weights.tolist() == pytest.approx([*(np.array([rare, common]) / np.hypot(rare, common)), 1, 1, 1])
    table["year"] = [1999, None, None, None]  # as rare as a
    weights = tf_idf(encode(table, 1), 4)
    assert weights[:3].tolist() == pytest.approx(np.array([rare, common, rare]) / np.sqrt(2 * rare**2 + common**2))
