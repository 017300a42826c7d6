import numpy as np
import pytest
import torch
from scipy import stats

from kdrec.deploy.compare import compare_files, overlap
from kdrec.errors import InputError
from kdrec.evaluation.evaluate import evaluate
from tests.deploy import byhand

pytestmark = pytest.mark.usefixtures("workplace")
DISCOUNT = 1 / np.log2(3)
NDCG_AT_2 = {"teacher.ckpt": [1, DISCOUNT, 0, 1], "student.ckpt": [DISCOUNT, 1, 1, 0]}


def test_by_hand() -> None:
    student, teacher = byhand.save("student", byhand.STUDENT), byhand.save("teacher", byhand.TEACHER, width=7)
    said: list[str] = []
    report = compare_files([student, teacher], with_latency=False, progress=said.append)
    assert report.protocol == "byhand/ready-made, full ranking"
    assert (report.stage, report.num_users, report.listed, report.metric) == ("test", 4, 2, "ndcg@2")
    assert [model.name for model in report.models] == ["teacher.ckpt", "student.ckpt"]  # the larger is the reference
    for model, name in zip(report.models, ("teacher", "student"), strict=True):
        assert model.metrics["recall@1"] == np.mean(byhand.RECALL_AT_1[name])
        assert model.metrics["recall@2"] == np.mean(byhand.RECALL_AT_2[name])
        assert model.metrics["ndcg@2"] == pytest.approx(np.mean(NDCG_AT_2[model.name]))
        assert model.bytes_on_disk == model.path.stat().st_size
        assert model.latency is None
    assert [model.parameters for model in report.models] == [70, 60]  # (4 users + 6 items) * width
    assert [model.bytes_of_model for model in report.models] == [280, 240]
    assert [model.overlap for model in report.models] == [1, byhand.OVERLAP]
    assert report.models[0].metrics["coverage@2"] == 3 / 6  # i0 i1 i2
    assert report.models[1].metrics["coverage@2"] == 4 / 6  # i1 i2 i3 i4
    assert said == ["Loading the data of byhand/ready-made, full ranking", "Ranking with teacher.ckpt (1 of 2)",
                    "Ranking with student.ckpt (2 of 2)"]  # fmt: skip


def test_significance_as_scipy_has_it() -> None:
    paths = [byhand.save("teacher", byhand.TEACHER), byhand.save("student", byhand.STUDENT)]
    [pair] = compare_files(paths, with_latency=False).pairs
    one, other = (np.array(NDCG_AT_2[name]) for name in ("student.ckpt", "teacher.ckpt"))
    assert (pair.first, pair.second, pair.num_users) == ("student.ckpt", "teacher.ckpt", 4)
    assert pair.difference == pytest.approx((one - other).mean())
    assert pair.p == pair.corrected_p == pytest.approx(stats.ttest_rel(one, other).pvalue)
    expected = stats.bootstrap(
        [one - other], np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(1)
    )
    assert (pair.low, pair.high) == pytest.approx((*expected.confidence_interval,), abs=0.05)


def test_all_pairs_corrected_together() -> None:
    paths = [byhand.save(name, byhand.TEACHER if name == "one" else byhand.STUDENT) for name in ("one", "two", "three")]
    report = compare_files(paths, metric="recall@1", with_latency=False)
    names = [(pair.first, pair.second) for pair in report.pairs]
    assert names == [("two.ckpt", "one.ckpt"), ("three.ckpt", "one.ckpt"), ("three.ckpt", "two.ckpt")]
    p = stats.ttest_rel(byhand.RECALL_AT_1["student"], byhand.RECALL_AT_1["teacher"]).pvalue
    assert [pair.corrected_p for pair in report.pairs] == pytest.approx([min(1, 3 * p), min(1, 3 * p), 1])
    assert (report.pairs[2].low, report.pairs[2].difference, report.pairs[2].high) == (0, 0, 0)


def test_the_reference_that_is_given() -> None:
    small, large = byhand.save("small", byhand.STUDENT), byhand.save("large", byhand.TEACHER, width=7)
    for paths in ([small, large], [large]):  # among the files or beside them
        report = compare_files(paths, small, with_latency=False)
        assert [model.name for model in report.models] == ["small.ckpt", "large.ckpt"]
        assert report.models[1].overlap == byhand.OVERLAP


@pytest.mark.parametrize("stage", ["val", "test"])
def test_the_numbers_of_evaluate(stage: str) -> None:
    path = byhand.save("student", byhand.STUDENT)
    report = compare_files([path], stage=stage, with_latency=False)
    content = torch.load(path, weights_only=True)
    model = byhand.BPR(6)
    model.bind(byhand.data().split.train)
    model.load_state_dict({name.removeprefix("recommender."): value for name, value in content["state_dict"].items()})
    expected = evaluate(model, byhand.data().split, stage, (1, 2))[0]
    assert report.models[0].metrics == pytest.approx(expected, rel=0, abs=0, nan_ok=True)  # nobody has i5 in the head
    assert not report.pairs


def test_among_sampled_candidates() -> None:
    """Among the held-out item and one other, whoever is found second is found within two."""
    path = byhand.save("student", byhand.STUDENT, evaluation={"cutoffs": [1, 2], "num_candidates": 1})
    with pytest.warns(UserWarning, match="Ranking among 1 sampled items"):
        assert compare_files([path]).models[0].metrics["recall@2"] == 1


def test_latencies_are_measured() -> None:
    paths = [byhand.save("teacher", byhand.TEACHER), byhand.save("student", byhand.STUDENT)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        report = compare_files(paths)
        assert torch.get_num_threads() == 2  # one only while it measures
    finally:
        torch.set_num_threads(threads)
    for model in report.models:
        assert model.latency
        assert 0 < model.latency.p50 <= model.latency.p99
        assert model.latency.users_per_second > 0
    assert "1 CPU thread" in report.measured
    assert "2 models in turn" in report.measured


def test_no_such_metric() -> None:
    path = byhand.save("student", byhand.STUDENT)
    with pytest.raises(InputError, match=r"was not evaluated by 'recall@3'; did you mean 'recall@"):
        compare_files([path], metric="recall@3")
    with pytest.raises(InputError, match=r"was not evaluated by 'coverage@1'"):  # it is no user's
        compare_files([path], metric="coverage@1")


def test_overlap_by_hand() -> None:
    reference = torch.tensor([[4, 2, 7], [1, -1, -1], [-1, -1, -1]])
    own = torch.tensor([[7, 9, 4], [1, -1, -1], [0, -1, -1]])
    assert overlap(reference, own) == pytest.approx((2 / 3 + 1) / 2)  # who has no list in the reference is left out
    assert overlap(reference, reference) == 1
