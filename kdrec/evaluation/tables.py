"""Tables in Markdown, and how a comparison of two models reads in one."""

from collections.abc import Sequence

from kdrec.evaluation.significance import Comparison

COMPARED = ("first", "second", "first - second", "95 % interval", "p, corrected", "users")
"""Heads of the columns of `comparison_cells`."""


def comparison_cells(comparison: Comparison) -> list[str]:
    """Write a comparison for people, a cell for each of `COMPARED`."""
    return [
        comparison.first,
        comparison.second,
        f"{comparison.difference:+.4f}",
        f"{comparison.low:+.4f} .. {comparison.high:+.4f}",
        f"{comparison.corrected_p:.2g}",
        f"{comparison.num_users:,}",
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int) -> str:
    """Write a Markdown table.

    Args:
        header: Heads of the columns.
        rows: Cells, as many in each row.
        num_texts: How many columns from the left hold text; the others hold numbers and stand to the right.

    Example:
        >>> print(markdown_table(["method", "recall"], [["a|b", "0.5"]], num_texts=1))
        | method | recall |
        | --- | --: |
        | a\\|b | 0.5 |
    """
    rule = ["---" if place < num_texts else "--:" for place in range(len(header))]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in [header, rule, *rows])
    return "\n".join("| " + " | ".join(row) + " |" for row in escaped)
