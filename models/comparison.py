"""Two models side by side on the same texts: differences with their intervals, over all and slice by slice.

Pure functions of outcomes. Each text is asked of both, so what differs is the models and not the luck of the texts.

- accuracy: of the in-scope texts, how many have the right best intent, threshold aside
- resolved: of all texts, how many end well: the right answer, or a person where the question isn't about banking
- wrong: of all texts, how many get a wrong answer; less is better
- hand_off: of the in-scope texts, how many go to a person; less is better
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.corpus import Example
from models.evaluation import Outcome, given, in_scope, split
from models.intents import OUT_OF_SCOPE
from models.intervals import Paired, paired
from models.text import normalise


@dataclass(frozen=True)
class Compared:
    """A figure as it is compared: which texts count, and which of them count as a yes."""

    among: Callable[[Outcome], bool]
    yes: Callable[[Outcome], bool]
    more_is_better: bool


def _everything(_: Outcome) -> bool:
    return True


def _resolved(o: Outcome) -> bool:
    return o.answered == o.wanted if in_scope(o) else not given(o)


FIGURES: Final[Mapping[str, Compared]] = {
    "accuracy": Compared(in_scope, lambda o: o.best == o.wanted, more_is_better=True),
    "resolved": Compared(_everything, _resolved, more_is_better=True),
    "wrong": Compared(_everything, lambda o: given(o) and o.answered != o.wanted, more_is_better=False),
    "hand_off": Compared(in_scope, lambda o: not given(o), more_is_better=False),
}


@dataclass(frozen=True)
class Difference:
    """One slice and figure: what each model has, and one less the other."""

    kind: str
    """`all`, `test`, `language`, `customers` or `intent`."""
    slice: str
    figure: str
    one: float
    other: float
    less: Paired

    @property
    def better_by(self) -> float:
        """The same with the sign turned so that more is better."""
        return self.less.value if FIGURES[self.figure].more_is_better else -self.less.value

    @property
    def at_worst(self) -> float:
        """How much better it is at the least; negative: worse by so much at the most."""
        return self.less.low if FIGURES[self.figure].more_is_better else -self.less.high

    @property
    def at_best(self) -> float:
        return self.less.high if FIGURES[self.figure].more_is_better else -self.less.low


Outcomes = Mapping[str, Sequence[Outcome]]
"""By the name of the test."""


def unseen(
    tests: Mapping[str, Sequence[Example]], learnt: Iterable[Example]
) -> dict[str, tuple[Example, ...]]:
    """The tests less the texts that were learnt, and less other texts of templates that were."""
    texts: set[str] = set()
    groups: set[str] = set()
    for example in learnt:
        texts.add(normalise(example.text))
        groups.add(example.group)
    return {
        name: tuple(e for e in examples if e.group not in groups and normalise(e.text) not in texts)
        for name, examples in tests.items()
    }


def difference(
    one: Sequence[Outcome],
    other: Sequence[Outcome],
    figure: str,
    *,
    confidence: float,
    kind: str = "all",
    slice_: str = "all",
) -> Difference:
    """`one` less `other` in a figure; both are outcomes of the same texts in the same order.

    Raises:
        ValueError: they aren't.
    """
    if [o.text for o in one] != [o.text for o in other]:
        raise ValueError("the outcomes are not of the same texts")
    compared = FIGURES[figure]
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if compared.among(a)]
    yes, others = [compared.yes(a) for a, _ in pairs], [compared.yes(b) for _, b in pairs]
    n = max(1, len(pairs))
    return Difference(
        kind,
        slice_,
        figure,
        round(sum(yes) / n, 4),
        round(sum(others) / n, 4),
        paired([a.group for a, _ in pairs], yes, others, confidence=confidence),
    )


def by_slice(
    one: Outcomes,
    other: Outcomes,
    figure: str,
    *,
    confidence: float,
    kinds: Sequence[str] = ("all", "test", "language", "customers", "intent"),
) -> list[Difference]:
    """A difference for each slice of each kind that has a text that counts, over the texts of all tests."""
    found: list[Difference] = []
    for kind in kinds:
        theirs = dict(_slices(other, kind))
        for name, part in _slices(one, kind):
            less = difference(part, theirs[name], figure, confidence=confidence, kind=kind, slice_=name)
            if less.less.n:
                found.append(less)
    return found


def together(found: Outcomes) -> list[Outcome]:
    """The outcomes of all tests."""
    return [outcome for part in found.values() for outcome in part]


def _slices(found: Outcomes, kind: str) -> Iterator[tuple[str, list[Outcome]]]:
    if kind == "all":
        yield "all", together(found)
    elif kind == "test":
        yield from ((name, list(part)) for name, part in found.items())
    else:
        keys: dict[str, Callable[[Outcome], str]] = {
            "language": lambda o: o.language,
            "customers": lambda o: o.customers,
            "intent": lambda o: "" if o.wanted == OUT_OF_SCOPE else o.wanted,
        }
        yield from split(together(found), keys[kind]).items()
