import contextlib

import pytest
import torch

from kdrec.deploy.compact import Compact, Table, compact
from kdrec.errors import InputError
from kdrec.models.base import Recommender
from kdrec.models.bpr import BPR
from kdrec.models.ncf import NCF
from kdrec.models.popularity import Popularity
from kdrec.models.quantization import pack_nibbles, quantize_rows, unpack_nibbles
from kdrec.models.quantized_bpr import QuantizedBPR
from tests.contracts.test_recommenders import MODELS, made
from tests.deploy.architectures import Biased, Distances, Neighbours, Propagated
from tests.generated import generate

TRAIN = generate(num_users=9, num_items=13)
USERS = torch.arange(9)


def fresh(architecture: type[Recommender]) -> Recommender:
    return made(architecture) if architecture in MODELS else architecture()


def bound(model: Recommender) -> Recommender:
    torch.manual_seed(0)
    model.bind(TRAIN)
    return model.eval()


@pytest.mark.parametrize("width", [1, 4, 5])
def test_packed_codes_come_back(width: int) -> None:
    codes = torch.randint(-7, 8, (6, width), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    packed = pack_nibbles(codes)
    assert packed.shape == (6, (width + 1) // 2)
    assert torch.equal(unpack_nibbles(packed, width), codes)


@pytest.mark.parametrize(("bits", "error"), [(32, 0), (16, 2**-11), (8, 0.5 / 127), (4, 0.5 / 7)])
def test_a_table_errs_by_half_a_step(bits: int, error: float) -> None:
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    table = Table.of(rows, bits, "rows")
    largest = (table.values - rows).abs().max(1).values / rows.abs().max(1).values
    assert error * 0.5 <= largest.max() <= error * 1.0001
    assert sum(part.nbytes for part in table.parts.values()) == 50 * ((7 * bits + 7) // 8 + 4 * (bits < 16))


def test_halves_do_not_reach_everything() -> None:
    with pytest.raises(InputError, match="counts holds numbers above 65,504"):
        Table.of(torch.tensor([[70000.0]]), 16, "counts")


@pytest.mark.parametrize("architecture", [*MODELS, Propagated, Distances, Neighbours], ids=lambda kind: kind.__name__)
def test_its_own_bits_change_nothing(architecture: type[Recommender]) -> None:
    model = bound(fresh(architecture))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.testing.assert_close(compact(model).recommender.score_all(USERS), model.score_all(USERS))
    with contextlib.suppress(InputError):
        compact(model, 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bits", [4, 8])
def test_the_codes_that_training_saw(bits: int) -> None:
    model = bound(QuantizedBPR(5, bits=bits))
    tables = compact(model).tables
    for name, weight in (("users.weight", model.users.weight), ("items.weight", model.items.weight)):
        codes, scales = quantize_rows(weight, bits)
        stored = tables[name].numbers
        assert torch.equal(unpack_nibbles(stored, 5) if bits == 4 else stored, codes)
        assert torch.equal(tables[name].scales, scales)


def widths(model: Compact) -> dict[str, torch.dtype]:
    return {name: table.numbers.dtype for name, table in model.tables.items()}


def test_layers_keep_8_bits_and_biases_all() -> None:
    few = widths(compact(bound(NCF(4, 2)), 4))
    assert few["users.weight"] == few["items.weight"] == torch.uint8
    assert few["first.weight"] == few["rest.2.weight"] == torch.int8
    assert few["first.bias"] == torch.float32


def test_quantized_scores_are_near() -> None:
    model = bound(QuantizedBPR(16))
    errors = [
        (compact(model, bits).recommender.score_all(USERS) - model.score_all(USERS)).abs().max() for bits in (4, 8, 16)
    ]
    assert errors[0] > errors[2] > 0 == errors[1]


def test_scales_that_outweigh_what_they_save() -> None:
    model = bound(Popularity())
    assert torch.equal(compact(model).recommender.score_all(USERS), model.score_all(USERS))
    for bits in (8, 4):
        with pytest.raises(InputError, match=f"^A Popularity has no table that would be smaller with {bits} bits a n"):
            compact(model, bits)


def test_a_model_of_computed_vectors_becomes_these() -> None:
    made = compact(bound(Propagated(5)))
    assert type(made.recommender) is BPR
    assert list(made.tables) == ["users.weight", "items.weight"]


def test_scores_that_are_not_what_they_are_said_to_be() -> None:
    with pytest.raises(InputError, match="The scores of a Biased are not the dot products of its vectors, so"):
        compact(bound(Biased()))


def test_tables_that_are_buffers_are_rounded_and_histories_are_not() -> None:
    model = bound(Neighbours())
    few = compact(model, 8)
    assert widths(few) == {
        "history_offsets": torch.int64,
        "history_items": torch.int64,
        "weights": torch.int8,
    }
    assert torch.equal(few.recommender.history_items, model.history_items)
    codes, scales = quantize_rows(model.weights, 8)
    assert torch.equal(few.recommender.weights, codes * scales.unsqueeze(1))


def test_whole_numbers_stay_what_they_are() -> None:
    assert compact(bound(Distances()), 4).recommender.number == 2**24 + 1
