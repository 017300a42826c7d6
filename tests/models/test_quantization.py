import pytest
import torch

from kdrec.errors import InputError
from kdrec.models.quantization import dequantize_rows, fake_quantize, quantize_rows, require_bits, row_bytes

# by hand, 4 bits: L = 7; the largest of row 0 is 14, so s = 2; of row 1 .7, so s = .1
TABLE = torch.tensor([[14.0, -3.2, 0.9, -14.0], [0.33, -0.7, 0.0, 0.06], [0.0, 0.0, 0.0, 0.0]])
CODES = [[7, -2, 0, -7], [3, -7, 0, 1], [0, 0, 0, 0]]
SCALES = [2.0, 0.1, 0.0]


def test_by_hand() -> None:
    codes, scales = quantize_rows(TABLE, 4)
    assert codes.dtype == torch.int8
    assert codes.tolist() == CODES
    assert scales.tolist() == pytest.approx(SCALES)
    assert dequantize_rows(codes, scales)[0].tolist() == [14.0, -4.0, 0.0, -14.0]


@pytest.mark.parametrize("bits", [4, 8])
def test_no_number_is_off_by_more_than_half_a_step(bits: int) -> None:
    table = torch.randn(50, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes, scales = quantize_rows(table, bits)
    largest = 2 ** (bits - 1) - 1
    assert codes.abs().amax(1).eq(largest).all()  # every row uses its whole range
    assert (dequantize_rows(codes, scales) - table).abs().amax() <= scales.max() / 2
    naive = [[round(x / (max(map(abs, row)) / largest)) for x in row] for row in table.tolist()]
    assert codes.tolist() == naive


@pytest.mark.parametrize("bits", [4, 8])
def test_the_fake_is_what_will_be_deployed(bits: int) -> None:
    table = torch.randn(20, 7, generator=torch.Generator().manual_seed(1))
    table[3] = 0
    assert torch.equal(fake_quantize(table, bits), dequantize_rows(*quantize_rows(table, bits)))


def test_gradients_pass_straight_through() -> None:
    table = TABLE.clone().requires_grad_()
    weights = torch.arange(12.0).view(3, 4)
    (fake_quantize(table, 4) * weights).sum().backward()
    assert torch.equal(table.grad, weights)  # type: ignore[arg-type]


def test_rounding_again_changes_nothing() -> None:
    once = fake_quantize(torch.randn(20, 7, generator=torch.Generator().manual_seed(2)), 8)
    torch.testing.assert_close(fake_quantize(once, 8), once)


def test_tiny_and_huge_rows() -> None:
    table = torch.tensor([[1e-30, -1e-30], [1e30, 5e29]])
    torch.testing.assert_close(fake_quantize(table, 8), table, rtol=0.01, atol=0)


@pytest.mark.parametrize(("width", "bits", "expected"), [(5, 4, 7), (76, 8, 80), (72, 4, 40), (20, 32, 80), (3, 16, 6)])
def test_bytes_of_a_row(width: int, bits: int, expected: int) -> None:
    assert row_bytes(width, bits) == expected


def test_other_bits_are_refused() -> None:
    with pytest.raises(InputError, match="X: bits is 3; it must be 4 or 8"):
        require_bits(3, "X")
