import pytest
import torch
from torch import Tensor

from kdrec.distillation.topology import gram_square, normalise, topology_distance
from kdrec.errors import InputError


def by_table(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition: sum over all ordered pairs of (A^t - A^s)^2, tables written out."""
    return (teacher @ teacher.T - student @ student.T).square().sum()


def pair_of_tables(n: int, student_dim: int, teacher_dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, dim, generator=generator, dtype=torch.float64) for dim in (student_dim, teacher_dim))  # type: ignore[return-value]


def test_by_hand() -> None:
    # student at 60 degrees: cos = 1/2; teacher at right angles: cos = 0. Diagonals agree, two off-diagonal pairs: 2/4.
    student = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]])
    assert topology_distance(student, torch.eye(2)).item() == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(("n", "student_dim", "teacher_dim"), [(50, 3, 20), (7, 20, 3), (1, 2, 2), (200, 20, 200)])
def test_value_and_gradient_equal_the_table(n: int, student_dim: int, teacher_dim: int) -> None:
    student, teacher = (normalise(table) for table in pair_of_tables(n, student_dim, teacher_dim))
    fast, slow = student.clone().requires_grad_(), student.clone().requires_grad_()
    value, expected = topology_distance(fast, teacher), by_table(slow, teacher)
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-10, atol=1e-10)


def test_float32_stays_within_1e_5_of_the_float64_table() -> None:
    student, teacher = (normalise(table) for table in pair_of_tables(1500, 20, 200))
    fast, slow = student.float().requires_grad_(), student.clone().requires_grad_()
    value, expected = topology_distance(fast, teacher.float()), by_table(slow, teacher)
    value.backward()
    expected.backward()
    assert fast.grad is not None
    assert slow.grad is not None
    assert abs(value.item() / expected.item() - 1) < 1e-5
    assert ((fast.grad.double() - slow.grad).norm() / slow.grad.norm()).item() < 1e-5


def test_gradient_by_finite_differences() -> None:
    student, teacher = pair_of_tables(5, 2, 3)
    assert torch.autograd.gradcheck(
        lambda table: topology_distance(normalise(table), normalise(teacher)), student.requires_grad_()
    )


def test_a_known_teacher_square_changes_nothing() -> None:
    student, teacher = (normalise(table) for table in pair_of_tables(30, 4, 9))
    assert topology_distance(student, teacher, gram_square(teacher)) == topology_distance(student, teacher)


@pytest.mark.parametrize("width", [1, 40, 41, 130])
def test_teacher_square_by_blocks_of_columns(width: int) -> None:
    table = pair_of_tables(30, width, width)[0].double()
    assert gram_square(table).item() == pytest.approx((table @ table.T).square().sum().item(), rel=1e-12)


def test_rotation_leaves_the_topology_alone() -> None:
    table = normalise(pair_of_tables(40, 6, 6)[0])
    rotation = torch.linalg.qr(pair_of_tables(6, 6, 6, seed=1)[0]).Q
    assert topology_distance(table, table @ rotation).item() == pytest.approx(0, abs=1e-9)


def test_a_value_that_cancels_is_never_negative() -> None:
    table = normalise(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)))
    assert topology_distance(table, table).item() >= 0


def test_zero_rows_have_cosine_zero() -> None:
    rows = normalise(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    assert rows.tolist() == [[0.0, 0.0], pytest.approx([0.6, 0.8])]
    assert topology_distance(rows, torch.tensor([[1.0], [0.0]])).item() == pytest.approx(2.0)  # two diagonal entries


@pytest.mark.parametrize("shapes", [((3, 2), (4, 2)), ((3,), (3,)), ((3, 2), (3, 2, 1))])
def test_wrong_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(InputError, match="one row for each entity"):
        topology_distance(torch.ones(shapes[0]), torch.ones(shapes[1]))
