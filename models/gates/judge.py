"""The gate's verdict: a pure function of what its file says and of the evidence, a line for each thing that is asked.

A floor is judged by the value. Over all texts a candidate fails if it could be worse than the champion by the margin;
in a slice, whose few texts can't show that it isn't, if it is worse by more than the margin and not by chance. What
isn't known fails: a missing record of training is no proof that nothing was learnt from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from models.comparison import FIGURES, Difference, Outcomes, by_slice, difference, together
from models.corpus import Example
from models.evaluation import figures
from models.gates.personal_data import find
from models.gates.spec import Gate
from models.intents import ANSWERABLE, OUT_OF_SCOPE
from models.intervals import Figure
from models.latency import Latency
from models.text import normalise

_NAMED = 3
"""So many slices, files or texts are named in a line; the rest is counted."""


@dataclass(frozen=True)
class Line:
    """One line of the gate: what was asked, what was found, and by how much it failed (empty where it passed)."""

    name: str
    passed: bool
    found: str
    wanted: str
    by: str = ""


@dataclass(frozen=True)
class Verdict:
    """Passed when every line has."""

    lines: tuple[Line, ...]

    @property
    def passed(self) -> bool:
        return all(line.passed for line in self.lines)

    @property
    def failed(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.passed)


@dataclass(frozen=True)
class Champion:
    """What the candidate is compared with: outcomes of both on the texts that neither has learnt."""

    version: str
    candidate: Outcomes
    champion: Outcomes
    latency: Latency
    signature: str
    answers: frozenset[str]


@dataclass(frozen=True)
class Evidence:
    """All that the verdict rests on."""

    outcomes: Outcomes
    """Of the candidate, on all tests."""
    tests: Mapping[str, Sequence[Example]] = field(repr=False)
    latency: Latency
    size_bytes: int
    record_fault: str
    """Why the record of training can't be believed; empty where it can."""
    learnt: Sequence[Example] = field(repr=False)
    """What the record says."""
    refit_difference: float
    """The largest difference in confidence between the model and a fit of its record."""
    input_example: Sequence[str]
    licences: Mapping[str, str | None]
    """Of each file of data; None: unknown."""
    data_sha256: str
    """That the version states."""
    tested_sha256: str
    """Of the data that the evaluation is about."""
    signature: str
    answers: frozenset[str]
    champion: Champion | None = None


def judge(gate: Gate, evidence: Evidence) -> Verdict:
    """Every line, in the order of the file."""
    return Verdict(
        (
            *_floors(gate, evidence),
            *_no_worse(gate, evidence),
            *_slices(gate, evidence),
            *_fairness(gate, evidence),
            *_calibration(gate, evidence),
            *_latency(gate, evidence),
            _at_most("size", evidence.size_bytes, gate.size.bytes_at_most, "{:,.0f} bytes"),
            _data(evidence),
            _record(gate, evidence),
            _leak(gate, evidence),
            _personal(evidence),
            _licences(gate, evidence),
            _signature(evidence),
        )
    )


def _floors(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    known = {name: figures(found).named() for name, found in evidence.outcomes.items()}
    for floor in gate.floors:
        name = f"floor {floor.test} {floor.figure}"
        figure: Figure | None = known.get(floor.test, {}).get(floor.figure)
        if figure is None or figure.n == 0:
            yield Line(name, False, "no text", f"≥ {floor.at_least:.1%}", "unknown")
            continue
        short = floor.at_least - figure.value
        yield Line(
            name,
            short <= 0,
            str(figure),
            f"≥ {floor.at_least:.1%}",
            f"{short * 100:.1f} points" if short > 0 else "",
        )


def _no_worse(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    champion = evidence.champion
    for asked in gate.no_worse:
        name = f"no worse {asked.figure}"
        wanted = f"worse by < {asked.margin * 100:.1f} points at {gate.confidence:.0%}"
        if champion is None:
            yield Line(name, True, "there is no champion", wanted)
            continue
        found = difference(
            together(champion.candidate),
            together(champion.champion),
            asked.figure,
            confidence=gate.confidence,
        )
        if not found.less.n:
            yield Line(name, False, "no text that neither has learnt", wanted, "unknown")
            continue
        beyond = -asked.margin - found.at_worst
        yield Line(
            name,
            beyond < 0,
            f"{found.one:.1%}, version {champion.version} {found.other:.1%}: {found.less}",
            wanted,
            f"{beyond * 100:.1f} points" if beyond >= 0 else "",
        )


def _slices(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    champion, asked = evidence.champion, gate.slices
    for kind, margin in asked.margins.items():
        name = f"slices {kind} {asked.figure}"
        wanted = f"none worse by > {margin * 100:.1f} points, and not by chance ({asked.confidence:.0%})"
        if champion is None:
            yield Line(name, True, "there is no champion", wanted)
            continue
        found = by_slice(
            champion.candidate,
            champion.champion,
            asked.figure,
            confidence=asked.confidence,
            kinds=(kind,),
        )
        if not found:
            yield Line(name, False, "no text that neither has learnt", wanted, "unknown")
            continue
        worse = sorted((one for one in found if is_worse(one, margin)), key=lambda one: one.better_by)
        worst = min(found, key=lambda one: one.better_by)
        yield Line(
            name,
            not worse,
            _listed([f"{one.slice} {one.less}" for one in worse or [worst]]),
            wanted,
            f"{(-margin - worst.better_by) * 100:.1f} points" if worse else "",
        )


def is_worse(found: Difference, margin: float) -> bool:
    """Whether a slice is worse by more than the margin, and more than chance explains."""
    return found.better_by < -margin and found.at_best < 0


def _fairness(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    asked, champion = gate.fairness, evidence.champion
    for figure, most in (
        ("accuracy", asked.accuracy_difference_at_most),
        ("hand_off", asked.hand_off_difference_at_most),
    ):
        name, wanted = f"fairness {figure}", f"≤ {most * 100:.1f} points between customer groups"
        found = _difference(evidence.outcomes, figure)
        if found is None:
            yield Line(name, False, "fewer than two groups", wanted, "unknown")
            continue
        between, by_group = found
        low, high = min(by_group, key=by_group.__getitem__), max(by_group, key=by_group.__getitem__)
        shares = f"{low} {by_group[low]:.1%}, {high} {by_group[high]:.1%}"
        yield _points(name, between, most, wanted, shares)
        name = f"fairness {figure} to champion"
        most = asked.more_than_champion_at_most
        wanted = f"≤ {most * 100:.1f} points more than the champion's"
        if champion is None:
            yield Line(name, True, "there is no champion", wanted)
            continue
        ours, theirs = _difference(champion.candidate, figure), _difference(champion.champion, figure)
        if ours is None or theirs is None:
            yield Line(name, False, "no text that neither has learnt", wanted, "unknown")
            continue
        yield _points(name, ours[0] - theirs[0], most, wanted, f"{ours[0]:.1%} and {theirs[0]:.1%}")


def _points(name: str, found: float, most: float, wanted: str, more: str) -> Line:
    by = f"{(found - most) * 100:.1f} points" if found > most else ""
    return Line(name, found <= most, f"{found * 100:.1f} points: {more}", wanted, by)


def _difference(found: Outcomes, figure: str) -> tuple[float, dict[str, float]] | None:
    of = [o for o in together(found) if o.customers and FIGURES[figure].among(o)]
    groups = [o.customers for o in of]
    if len(set(groups)) < 2:
        return None
    return group_difference([FIGURES[figure].yes(o) for o in of], groups)


def group_difference(values: Sequence[bool], groups: Sequence[str]) -> tuple[float, dict[str, float]]:
    """fairlearn's difference between groups (largest less smallest share), and the share of each group."""
    from fairlearn.metrics import MetricFrame, selection_rate

    predicted = [int(value) for value in values]
    frame = MetricFrame(
        metrics=selection_rate, y_true=predicted, y_pred=predicted, sensitive_features=list(groups)
    )
    shares = {str(name): float(share) for name, share in frame.by_group.items()}
    return float(frame.difference(method="between_groups")), shares


def _calibration(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    found = figures(together(evidence.outcomes))
    for name, figure, most in (
        ("calibration error", found.calibration_error, gate.calibration.error_at_most),
        ("calibration brier", found.brier, gate.calibration.brier_at_most),
    ):
        yield Line(
            name,
            figure.n > 0 and figure.value <= most,
            f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] (n={figure.n})",
            f"≤ {most:.3f}",
            f"{figure.value - most:.3f}" if figure.value > most else "" if figure.n else "unknown",
        )


def _latency(gate: Gate, evidence: Evidence) -> Iterator[Line]:
    yield _at_most("latency p99", evidence.latency.p99_ms.value, gate.latency.p99_ms_at_most, "{:.2f} ms")
    most, name = gate.latency.times_champion_at_most, "latency to champion"
    if evidence.champion is None:
        yield Line(name, True, "there is no champion", f"≤ {most:.2f} times")
        return
    ratio = evidence.latency.p50_ms.value / max(1e-6, evidence.champion.latency.p50_ms.value)
    yield _at_most(name, ratio, most, "{:.2f} times")


def _at_most(name: str, found: float, most: float, shown: str) -> Line:
    by = shown.format(found - most) if found > most else ""
    return Line(name, found <= most, shown.format(found), f"≤ {shown.format(most)}", by)


def _data(evidence: Evidence) -> Line:
    same = evidence.data_sha256 == evidence.tested_sha256
    return Line(
        "data hash",
        same,
        evidence.data_sha256[:12] or "none",
        f"{evidence.tested_sha256[:12]}, the data of this evaluation",
        "" if same else "it was trained on other data",
    )


def _record(gate: Gate, evidence: Evidence) -> Line:
    most = gate.refit.confidence_difference_at_most
    wanted = f"fitted again it says the same, within {most:.3f}"
    if evidence.record_fault:
        return Line("training record", False, evidence.record_fault, wanted, "unknown")
    beyond = evidence.refit_difference - most
    return Line(
        "training record",
        beyond <= 0,
        f"{len(evidence.learnt):,} texts, difference {evidence.refit_difference:.4f}",
        wanted,
        f"{beyond:.4f}" if beyond > 0 else "",
    )


def _leak(gate: Gate, evidence: Evidence) -> Line:
    most = gate.leak.bent_share_at_most
    wanted = f"none, and by chance of bending ≤ {most:.1%}"
    if evidence.record_fault:
        return Line("leak", False, evidence.record_fault, wanted, "unknown")
    leaked = leaks(evidence.tests, evidence.learnt)
    faults = [
        f"{name}: {seen} of {of} texts, {bent} more by bending"
        for name, (seen, bent, of) in leaked.items()
        if seen or bent > most * of
    ]
    total, of_all = sum(seen + bent for seen, bent, _ in leaked.values()), sum(n for *_, n in leaked.values())
    return Line(
        "leak",
        not faults,
        _listed(faults) if faults else f"{total} of {of_all} texts of tests, by chance of bending",
        wanted,
        f"{total} texts" if faults else "",
    )


def leaks(
    tests: Mapping[str, Sequence[Example]], learnt: Sequence[Example]
) -> dict[str, tuple[int, int, int]]:
    """Of each test: texts that were learnt or whose template was, texts that bending made, and how many there are."""
    plain = {normalise(example.text) for example in learnt if not example.bent}
    bent = {normalise(example.text) for example in learnt if example.bent} - plain
    groups = {example.group for example in learnt}
    found: dict[str, tuple[int, int, int]] = {}
    for name, examples in tests.items():
        seen = [e.group in groups or normalise(e.text) in plain for e in examples]
        chance = [not was and normalise(e.text) in bent for was, e in zip(seen, examples, strict=True)]
        found[name] = (sum(seen), sum(chance), len(examples))
    return found


def _personal(evidence: Evidence) -> Line:
    wanted = "none in the training set and in the input example"
    if evidence.record_fault:
        return Line("personal data", False, evidence.record_fault, wanted, "unknown")
    faults: list[str] = []
    total = 0
    for place, texts in (
        ("training", [example.text for example in evidence.learnt]),
        ("input example", evidence.input_example),
    ):
        counts = Counter(found.kind for found in find(texts))
        total += counts.total()
        faults += [f"{count} × {kind} in the {place}" for kind, count in counts.items()]
    looked = len(evidence.learnt) + len(evidence.input_example)
    return Line(
        "personal data",
        not faults,
        _listed(faults) if faults else f"none in {looked:,} texts",
        wanted,
        str(total) if faults else "",
    )


def _licences(gate: Gate, evidence: Evidence) -> Line:
    faults = [
        f"{file}: {licence or 'unknown'}"
        for file, licence in evidence.licences.items()
        if licence not in gate.licences
    ]
    return Line(
        "licence of data",
        not faults and bool(evidence.licences),
        _listed(faults) if faults else f"{len(evidence.licences)} files",
        " or ".join(gate.licences),
        f"{len(faults)} files" if faults else "" if evidence.licences else "unknown",
    )


def _signature(evidence: Evidence) -> Line:
    champion = evidence.champion
    strange = sorted(evidence.answers - set(ANSWERABLE) - {OUT_OF_SCOPE})
    missing = sorted(champion.answers - evidence.answers) if champion else []
    faults = [f"answers that nothing serves: {', '.join(strange)}"] if strange else []
    if not evidence.signature:
        faults.append("no signature")
    elif champion is not None and evidence.signature != champion.signature:
        faults.append(f"{evidence.signature} instead of {champion.signature}")
    if missing:
        faults.append(f"doesn't know {', '.join(missing)}")
    return Line(
        "signature",
        not faults,
        _listed(faults) if faults else f"{len(evidence.answers)} classes",
        "the champion's, and answers that are served",
        "it differs" if faults else "",
    )


def _listed(parts: Sequence[str]) -> str:
    more = f"; and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return "; ".join(parts[:_NAMED]) + more
