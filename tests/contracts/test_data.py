"""What every splitter and every data module promises."""

import inspect

import numpy as np
import pytest

from kdrec.data.base import InteractionDataModule
from kdrec.data.splits import Split, Splitter
from kdrec.models.described import as_config
from tests.discovery import subclasses
from tests.generated import generate

SPLITTERS = subclasses("data", Splitter)
DATA_MODULES = [module for module in subclasses("data", InteractionDataModule) if module.name]
every_splitter = pytest.mark.parametrize("splitter", SPLITTERS, ids=lambda splitter: splitter.__name__)
every_data_module = pytest.mark.parametrize("module", DATA_MODULES, ids=lambda module: module.__name__)
LOG = generate(num_users=25, num_items=120)


def keys(split: Split) -> list[np.ndarray]:
    return [part.users * part.num_items + part.items for part in (split.train, split.valid, split.test)]


def test_there_are_some() -> None:
    assert len(SPLITTERS) >= 2
    assert len(DATA_MODULES) >= 2


@every_splitter
def test_the_parts_are_disjoint_and_whole(splitter: type[Splitter]) -> None:
    split = splitter()(LOG)  # type: ignore[call-arg]
    kept = LOG.with_min_interactions(splitter().min_interactions)  # type: ignore[call-arg]
    joined = np.concatenate(keys(split))
    assert len(np.unique(joined)) == len(joined) == len(kept)
    assert set(joined) == set(kept.users * kept.num_items + kept.items)


@every_splitter
def test_every_user_trains_and_somebody_is_asked(splitter: type[Splitter]) -> None:
    split = splitter()(LOG)  # type: ignore[call-arg]
    assert split.train.user_counts.min() >= 1
    for part in (split.valid, split.test):
        assert len(part) > 0
        assert part.user_ids is split.train.user_ids or (part.user_ids == split.train.user_ids).all()


@every_splitter
def test_twice_the_same_and_rebuilt_from_its_description(splitter: type[Splitter]) -> None:
    first = splitter()  # type: ignore[call-arg]
    again = splitter(**as_config(first)["init_args"])
    assert again.name == first.name
    for one, other in zip(keys(first(LOG)), keys(again(LOG)), strict=True):
        assert np.array_equal(np.sort(one), np.sort(other))


@every_splitter
def test_the_name_tells_every_option(splitter: type[Splitter]) -> None:
    changed = {"seed": 5, "min_interactions": 4, "order": "random", "valid": 0.2, "test": 0.2, "num_users": 7}
    for option in inspect.signature(splitter).parameters:
        if option == "seed" and "order" in inspect.signature(splitter).parameters:
            one, other = splitter(order="random"), splitter(order="random", seed=5)  # type: ignore[call-arg]
        else:
            one, other = splitter(), splitter(**{option: changed[option]})  # type: ignore[call-arg]
        assert one.name != other.name, option


@every_data_module
def test_takes_the_common_options_and_keeps_them(module: type[InteractionDataModule]) -> None:
    options = inspect.signature(InteractionDataModule.__init__).parameters
    assert set(options) <= set(inspect.signature(module.__init__).parameters)
    made = module(root="somewhere", batch_size=7)
    said = as_config(made)["init_args"]
    assert (said["root"], said["batch_size"]) == ("somewhere", 7)
    assert made.protocol == f"{module.name}/{made.splitter.name}"
    assert as_config(module(**{**said, "splitter": made.splitter})) == as_config(made)


@every_data_module
def test_names_are_one_each(module: type[InteractionDataModule]) -> None:
    assert [other.name for other in DATA_MODULES].count(module.name) == 1
