import pytest
import torch

from kdrec.errors import InputError
from kdrec.models.bpr import BPR
from kdrec.models.quantization import dequantize_rows, quantize_rows
from kdrec.models.quantized_bpr import QuantizedBPR

USERS = torch.tensor([[7.0, 3.2], [0.0, -0.7]])
ITEMS = torch.tensor([[1.4, 0.3], [-0.7, 0.7], [0.0, 0.0]])
# at 4 bits, L = 7: (7, 3.2) -> (7, 3), (0, -.7) -> (0, -.7); (1.4, .3) -> 1.4/7 * (7, 2) = (1.4, .4), the others stay
SCORES = [[7 * 1.4 + 3 * 0.4, -7 * 0.7 + 3 * 0.7, 0.0], [-0.7 * 0.4, -0.49, 0.0]]


@pytest.fixture
def model() -> QuantizedBPR:
    model = QuantizedBPR(embedding_dim=2, bits=4)
    model.build(2, 3)
    model.users.weight.data.copy_(USERS)
    model.items.weight.data.copy_(ITEMS)
    return model


def test_scores_by_hand(model: QuantizedBPR) -> None:
    torch.testing.assert_close(model.score_all(torch.tensor([0, 1])), torch.tensor(SCORES))


def test_equals_a_plain_model_of_rounded_tables(model: QuantizedBPR) -> None:
    plain = BPR(2)
    plain.build(2, 3)
    for table, rounded in ((model.users, plain.users), (model.items, plain.items)):
        rounded.weight.data.copy_(dequantize_rows(*quantize_rows(table.weight, 4)))
    users, items = torch.tensor([0, 1, 1]), torch.tensor([[2, 0], [1, 1], [0, 2]])
    assert torch.equal(model.score(users, items), plain.score(users, items))
    assert torch.equal(model.score_all(users), plain.score_all(users))


def test_few_and_many_items_have_the_same_vectors_and_gradients(model: QuantizedBPR) -> None:
    few, many = torch.tensor([2, 0]), torch.tensor([2, 0, 1, 0])  # many: more than there are items
    torch.testing.assert_close(model.item_vectors(many)[:2], model.item_vectors(few))
    gradients = []
    for items in (many[:2], many):
        model.zero_grad()
        model.item_vectors(items)[:2].square().sum().backward()
        gradients.append(model.items.weight.grad)
    torch.testing.assert_close(*gradients)


def test_training_may_see_the_floats_that_ranking_rounds(model: QuantizedBPR) -> None:
    floats = QuantizedBPR(embedding_dim=2, bits=4, rounded_in_training=False)
    floats.build(2, 3)
    floats.load_state_dict(model.state_dict())
    everybody, everything = torch.tensor([0, 1]), torch.tensor([0, 1, 2])
    torch.testing.assert_close(floats.eval().score_all(everybody), torch.tensor(SCORES))
    floats.train()
    assert torch.equal(floats.user_vectors(everybody), USERS)
    assert torch.equal(floats.item_vectors(everything), ITEMS)
    assert torch.equal(floats.score_all(everybody), USERS @ ITEMS.T)
    assert torch.equal(model.train().user_vectors(everybody), model.eval().user_vectors(everybody))


def test_size(model: QuantizedBPR) -> None:
    assert model.num_bytes() == 5 * (1 + 4)  # two numbers of 4 bits and a scale, for each user and item
    assert model.num_parameters() == 10


def test_other_bits_are_refused() -> None:
    with pytest.raises(InputError, match="QuantizedBPR: bits is 5; it must be 4 or 8"):
        QuantizedBPR(bits=5)
