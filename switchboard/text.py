"""How lists are printed for a person: columns and ages as kubectl has them."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], *, gap: int = 3) -> str:
    """Left-aligned columns, `gap` spaces apart, a line for each row; empty without rows."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return "\n".join(
        (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def age(seconds: float) -> str:
    """As kubectl shows it: 45s, 12m, 5h, 3d."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size * (2 if unit != "d" else 1):
            return f"{whole // size}{unit}"
    return f"{whole}s"
