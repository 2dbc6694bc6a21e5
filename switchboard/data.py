"""Classes of data, and where data of each may be: the words by which stack files, components and policies agree."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class DataClass(StrEnum):
    """How sensitive data is. Ordered: what holds data of several classes is of the greatest.

    - `public`: product information that anyone may read.
    - `internal`: models, metrics, configuration.
    - `customer`: customers' words, masked before they are stored or logged; served in public sites, in its regions.
    - `restricted`: identities, accounts, unmasked text, customers' training data; stays in private sites.
    """

    PUBLIC = "public"
    INTERNAL = "internal"
    CUSTOMER = "customer"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """0 for the least sensitive class, and one more for each next."""
        return list(DataClass).index(self)

    def __lt__(self, other: str) -> bool:
        return self.rank < DataClass(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= DataClass(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > DataClass(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= DataClass(other).rank

    @property
    def must_stay_private(self) -> bool:
        """Whether data of this class may be in private sites only."""
        return self is DataClass.RESTRICTED

    @property
    def bound_to_regions(self) -> bool:
        """Whether data of this class may be in stated regions only."""
        return self >= DataClass.CUSTOMER


def regions_text(regions: Iterable[str]) -> str:
    """The value of the annotation `labels.DATA_REGIONS`: the regions in order, each once."""
    return ",".join(sorted(set(regions)))


def parse_regions(text: str) -> frozenset[str]:
    """The regions of a `labels.DATA_REGIONS` annotation; none where it is empty."""
    return frozenset(region.strip() for region in text.split(",") if region.strip())
