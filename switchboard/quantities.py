"""Kubernetes quantities (`500m`, `512Mi`, `1e3`) as exact numbers."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_QUANTITY = re.compile(r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)([a-zA-Z]{0,2})$")


def parse(quantity: str | int | float) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        ValueError: it isn't one.
    """
    match = _QUANTITY.match(str(quantity))
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def in_units(quantity: str | int | float, divisor: str | int | float = "1") -> int:
    """How many whole `divisor`s, rounded up (as `resourceFieldRef` shows a resource)."""
    unit = parse(divisor) or Decimal(1)
    return int((parse(quantity) / unit).to_integral_value(ROUND_CEILING))
