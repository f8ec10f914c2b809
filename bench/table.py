"""Rows of results as a table for the documents."""

from collections.abc import Mapping, Sequence

__all__ = ["markdown"]


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows, which have the same columns, as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines += [["" if row[name] is None else str(row[name]) for name in head] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
