from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Load:
    """What a load saw: answers by status, failures in words."""

    answers: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    by: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.answers.values()) + len(self.errors)

    @property
    def failed(self) -> int:
        return self.total - self.answers.get(200, 0)

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} failed: {self.answers}, {self.errors[:3]}"
