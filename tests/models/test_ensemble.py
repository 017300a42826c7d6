import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kdrec.data.interactions import Interactions
from kdrec.errors import InputError
from kdrec.models import checkpoint
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.described import as_config
from kdrec.models.ease import EASE
from kdrec.models.ensemble import Ensemble, ranks, standardised
from kdrec.models.item_knn import ItemKNN
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from kdrec.models.quantized_bpr import QuantizedBPR
from tests.generated import content_of, generate

TRAIN = generate()
USERS = torch.arange(30)


def saved(folder: Path, train: Interactions, *models: Recommender) -> list[str]:
    """Return checkpoints of models that learned from some data."""
    paths = []
    for index, model in enumerate(models):
        torch.manual_seed(index)
        model.bind(train)
        torch.save(content_of(model, train), folder / f"{index}.ckpt")
        paths.append(str(folder / f"{index}.ckpt"))
    return paths


@cache
def _files() -> tuple[tempfile.TemporaryDirectory, list[str]]:
    folder = tempfile.TemporaryDirectory()  # to be removed at the end of the tests
    models = BPR(3, init_std=1.0), NCF(4, init_std=1.0), EASE(5.0), ItemKNN(3), Popularity()
    return folder, saved(Path(folder.name), generate(num_users=9, num_items=13), *models)


def make() -> Ensemble:
    """An ensemble for the contract tests, whose data has 9 users and 13 items."""
    return Ensemble(_files()[1], by="ranks")


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return saved(tmp_path, TRAIN, BPR(4, init_std=1.0), NCF(4, init_std=1.0), ItemKNN(5))


def bound(paths: list[str], by: Any = "scores") -> Ensemble:
    ensemble = Ensemble(paths, by)
    ensemble.bind(TRAIN)
    return ensemble.eval()


# What is averaged


def test_scores_are_standardised_over_the_catalogue_and_averaged(paths: list[str]) -> None:
    expected = torch.zeros(30, 40, dtype=torch.float64)
    for path in paths:
        for user, scores in enumerate(checkpoint.restore(path).score_all(USERS).double()):
            mean = scores.sum() / 40
            deviation = (((scores - mean) ** 2).sum() / 40) ** 0.5
            expected[user] += (scores - mean) / deviation / 3
    torch.testing.assert_close(bound(paths).score_all(USERS).double(), expected, rtol=1e-5, atol=1e-5)


def test_ranks_are_averaged(paths: list[str]) -> None:
    expected = torch.zeros(30, 40)
    for path in paths:
        for user, scores in enumerate(checkpoint.restore(path).score_all(USERS).tolist()):
            for item, score in enumerate(scores):
                below, same = sum(other < score for other in scores), scores.count(score) - 1
                expected[user, item] += (below + same / 2) / 3
    torch.testing.assert_close(bound(paths, "ranks").score_all(USERS), expected)


def test_by_hand() -> None:
    """Scores 1, 3 are -1, 1 beside their mean 2 and deviation 1; of 4, 0, 0, 0 all but one share places 0, 1, 2."""
    assert standardised(torch.tensor([[1.0, 3.0]])).tolist() == [[-1, 1]]
    assert ranks(torch.tensor([[4.0, 0.0, 0.0, 0.0], [1.0, 2.0, 4.0, 3.0]])).tolist() == [[3, 1, 1, 1], [0, 1, 3, 2]]


def test_a_member_that_knows_no_difference_makes_none(tmp_path: Path) -> None:
    users, items = TRAIN.users, TRAIN.items
    assert standardised(torch.full((1, 40), 0.1)).isfinite().all()
    same = torch.full((2, 7), 0.1)
    assert torch.equal(ranks(same), torch.full((2, 7), 3.0))
    strangers = Interactions(users[:1], items[:1], TRAIN.user_ids, TRAIN.item_ids)  # 29 users without a neighbour
    paths = saved(tmp_path, strangers, ItemKNN(), Popularity())
    for by in ("scores", "ranks"):
        ensemble = Ensemble(paths, by)  # type: ignore[arg-type]
        ensemble.bind(strangers)
        assert ensemble.score_all(USERS).argmax(1).tolist() == [items[0]] * 30


def test_one_member_ranks_as_it_does_alone(paths: list[str]) -> None:
    alone = checkpoint.restore(paths[0]).score_all(USERS).argsort(1)
    for by in ("scores", "ranks"):
        assert torch.equal(bound(paths[:1], by).score_all(USERS).argsort(1), alone)


# What it is made of


def test_its_checkpoint_needs_no_other_file(paths: list[str], tmp_path: Path) -> None:
    ensemble, inner = bound(paths), bound(paths[:2], "ranks")
    torch.save(content_of(inner, TRAIN), tmp_path / "inner.ckpt")
    outer = bound([*paths, str(tmp_path / "inner.ckpt")])
    for model in (ensemble, outer):
        torch.save(content_of(model, TRAIN), tmp_path / "whole.ckpt")
        expected = model.score_all(USERS)
        for path in paths:
            Path(path).rename(f"{path}.away")
        again = checkpoint.restore(tmp_path / "whole.ckpt")
        for path in paths:
            Path(f"{path}.away").rename(path)
        assert torch.equal(again.score_all(USERS), expected)
        assert as_config(again) == as_config(model)


def test_size_is_the_sum_of_the_members(tmp_path: Path) -> None:
    models = BPR(4), QuantizedBPR(8, bits=4), EASE(5.0), ItemKNN(3)
    ensemble = bound(saved(tmp_path, TRAIN, *models))
    assert ensemble.num_bytes() == sum(model.num_bytes() for model in models)
    assert ensemble.num_parameters() == sum(model.num_parameters() for model in models) == 70 * 12


def test_members_are_frozen(paths: list[str]) -> None:
    ensemble = bound(paths)
    assert not ensemble.score_all(USERS).requires_grad
    assert not [name for name, parameter in ensemble.named_parameters() if parameter.requires_grad]


def test_catalogues_are_encoded_once(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = bound(paths)
    catalogue = ensemble.encode_catalogue()
    expected = ensemble.score_all(USERS)
    for architecture in (BPR, NCF):
        monkeypatch.delattr(architecture, "encode_catalogue")
    monkeypatch.delattr(Recommender, "encode_catalogue")
    assert torch.equal(ensemble.score_all(USERS, catalogue), expected)


# What is refused


def test_no_members() -> None:
    with pytest.raises(InputError, match="Ensemble: checkpoints is empty; name at least one"):
        Ensemble([])


def test_another_way_to_average(paths: list[str]) -> None:
    with pytest.raises(InputError, match="Ensemble: by is 'votes'; it must be 'scores' or 'ranks'"):
        Ensemble(paths, by="votes")  # type: ignore[arg-type]


def test_a_missing_file(paths: list[str]) -> None:
    with pytest.raises(InputError, match=r"There is no checkpoint nowhere\.ckpt"):
        bound([*paths, "nowhere.ckpt"])


def test_members_of_different_data(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = saved(tmp_path / "other", generate(seed=1), BPR(4))
    with pytest.raises(InputError, match=r"The member .*other/0\.ckpt was made on other data: its training pairs"):
        bound([*paths, *other])
    smaller = saved(tmp_path / "other", generate(num_users=29), BPR(4))
    with pytest.raises(InputError, match=r"The member .* was made on other data: it knows 29 users"):
        bound([*paths, *smaller])
    member = BPR(4)
    member.bind(generate(num_users=29))
    with pytest.raises(InputError, match="a BPR knows 29 users and 40 items, and the data has 30 and 40"):
        Ensemble([], members=[member]).bind(TRAIN)


def test_a_member_that_was_never_trained(paths: list[str]) -> None:
    with pytest.raises(InputError, match="there is a member that was never trained"):
        Ensemble(paths, members=[BPR(4)]).bind(TRAIN)


class Trap:
    """No recommender, from a module that is imported already."""

    called = False

    def __init__(self) -> None:
        Trap.called = True


@pytest.mark.parametrize(
    "members",
    [
        None,
        [],
        [{"class_path": "kdrec.models.bpr.BPR", "init_args": {"embedding_dim": 4}}],
        [{"class_path": "kdrec.models.bpr.BPR"}] * 3,
        [{"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}}] * 3,
        [{"class_path": f"{__name__}.Trap"}] * 3,
        [{"class_path": "kdrec_trap.Model"}] * 3,
        ["kdrec.models.bpr.BPR"] * 3,
        {"class_path": "kdrec.models.bpr.BPR"},
    ],
)
def test_a_file_with_other_members(paths: list[str], members: Any, tmp_path: Path) -> None:
    content = content_of(bound(paths), TRAIN)
    content["kdrec"]["model"]["init_args"]["members"] = members
    torch.save(content, tmp_path / "whole.ckpt")
    with pytest.raises(InputError, match=r"whole\.ckpt"):
        checkpoint.restore(tmp_path / "whole.ckpt")
    assert not Trap.called


def test_a_file_whose_members_are_damaged(paths: list[str], tmp_path: Path) -> None:
    content = content_of(bound(paths), TRAIN)
    content["state_dict"]["recommender.models.2.neighbours"][0] = 1000
    torch.save(content, tmp_path / "whole.ckpt")
    with pytest.raises(InputError, match="its neighbours are not those of its items"):
        checkpoint.restore(tmp_path / "whole.ckpt")
