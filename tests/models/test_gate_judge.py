"""The gate's pure parts: what its file may say, and the verdict as a function of evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.comparison import difference
from models.corpus import Example
from models.evaluation import Outcome
from models.gates import spec
from models.gates.judge import Champion, Evidence, group_difference, is_worse, judge, leaks
from models.latency import Latency
from switchboard.errors import SwitchboardError

FILE = spec.FOLDER / "chat-intent.yaml"
GATE = spec.load("chat-intent")
QUICK, SLOW = Latency.of([0.1, 0.2]), Latency.of([0.5, 9.0])
ANSWERS = frozenset({"card_lost", "loan_rate", "out_of_scope"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("confidence: 0.95", "confidence: 1.5", "confidence: Input should be less than 1"),
        ("figure: macro_f1", "figure: beauty", "floors.4.figure: .*'beauty' is none of accuracy"),
        (
            "{figure: accuracy, margin",
            "{figure: macro_f1, margin",
            "no_worse.0.figure: .*'macro_f1' is none of",
        ),
        ("margin: 0.02}", "margin: -0.02}", "no_worse.0.margin"),
        ("language: 0.03", "weekday: 0.03", "slices.margins"),
        ("bytes_at_most: 8000000", "bytes: 1", "size.bytes"),
        ("refit:", "refits:", "refit: Field required|refits: Extra"),
        ("confidence: 0.95", "sha256: abc", "without sha256"),
        ("confidence: 0.95", "confidence: [", "is not a gate"),
    ],
)
def test_what_a_gate_can_not_say(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "gate.yaml"
    text = FILE.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SwitchboardError, match=f"gate.yaml is not a gate: .*({message})|{message}"):
        spec.load("chat-intent", path)


def test_a_gate_that_is_not_there() -> None:
    with pytest.raises(SwitchboardError, match=r"there is no gate for nothing.*\n.*--gate FILE"):
        spec.load("nothing")


def outcomes(right: int, of: int, customers: str = "", confidence: float = 0.95) -> list[Outcome]:
    return [
        Outcome(
            f"{customers}{i}",
            "en",
            f"{customers}{i}",
            "card_lost",
            *(
                ("card_lost", confidence, "card_lost")
                if i < right
                else ("loan_rate", 1 - confidence, "handover")
            ),
            customers=customers,
        )
        for i in range(of)
    ]


def evidence(**changed: object) -> Evidence:
    """A model that is right in 97 of 100 texts of each test, and in 29 of 30 of each group."""
    asked = {
        "templates": outcomes(970, 1000) + [outside(i) for i in range(50)],
        "handwritten": outcomes(194, 200),
        "groups": outcomes(29, 30, "senior") + outcomes(29, 30, "young"),
    }
    good = Evidence(
        outcomes=asked,
        tests={"handwritten": [Example("a test", "card_lost", "en", "h")]},
        latency=QUICK,
        size_bytes=2_000_000,
        record_fault="",
        learnt=[Example("learnt", "card_lost", "en", "t")],
        refit_difference=0.0,
        input_example=["hello"],
        licences={"a.yaml": "Apache-2.0"},
        data_sha256="a" * 64,
        tested_sha256="a" * 64,
        signature="{}",
        answers=ANSWERS,
    )
    return replace(good, **changed)  # type: ignore[arg-type]


def outside(i: int) -> Outcome:
    return Outcome(f"o{i}", "en", f"o{i}", "out_of_scope", "out_of_scope", 0.95, "handover")


def against(**changed: object) -> Champion:
    asked = evidence().outcomes
    return replace(Champion("1", asked, asked, QUICK, "{}", ANSWERS), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        (evidence(), set()),
        (evidence(champion=against()), set()),
        (evidence(latency=SLOW), {"latency p99"}),
        (evidence(latency=Latency.of([0.4]), champion=against()), {"latency to champion"}),
        (evidence(size_bytes=9_000_000), {"size"}),
        (evidence(data_sha256="b" * 64), {"data hash"}),
        (evidence(data_sha256=""), {"data hash"}),
        (evidence(refit_difference=0.5), {"training record"}),
        (evidence(record_fault="none"), {"training record", "leak", "personal data"}),
        (evidence(learnt=[Example("A  test", "card_lost", "en", "x")]), {"leak"}),
        (evidence(learnt=[Example("another", "card_lost", "en", "h")]), {"leak"}),
        (evidence(learnt=[Example("a test", "card_lost", "en", "x", bent=True)]), {"leak"}),
        (evidence(input_example=["ana@example.com"]), {"personal data"}),
        (evidence(licences={"a.yaml": None}), {"licence of data"}),
        (evidence(licences={}), {"licence of data"}),
        (evidence(signature=""), {"signature"}),
        (evidence(champion=against(signature="[]")), {"signature"}),
        (evidence(champion=against(answers=ANSWERS | {"greeting"})), {"signature"}),
        (evidence(answers=ANSWERS | {"weather"}), {"signature"}),
    ],
)
def test_each_line_fails_by_itself(found: Evidence, failed: set[str]) -> None:
    verdict = judge(GATE, found)
    assert {line.name for line in verdict.failed} == failed
    assert verdict.passed is (not failed)
    assert all(line.by for line in verdict.failed), "by how much is always said"
    assert not any(line.by for line in verdict.lines if line.passed)


def test_worse_than_the_champion() -> None:
    """Four points fewer are resolved: more than the margin, in every line that compares."""
    better = {name: outcomes(len(found), len(found)) for name, found in {"t": range(600)}.items()}
    worse = {"t": outcomes(570, 600)}
    verdict = judge(GATE, evidence(champion=against(candidate=worse, champion=better)))
    failed = {line.name: line for line in verdict.failed}
    assert {"no worse accuracy", "no worse resolved", "slices language resolved"} <= set(failed)
    assert "no worse wrong" not in failed, "they are handed over, not answered wrongly"
    assert failed["no worse resolved"].by.endswith(" points")


def test_no_text_is_no_proof() -> None:
    verdict = judge(GATE, evidence(outcomes={}, champion=against(candidate={}, champion={})))
    failed = {line.name for line in verdict.failed}
    assert {"floor handwritten coverage", "no worse resolved", "slices intent resolved"} <= failed
    assert {"fairness accuracy", "calibration error"} <= failed
    assert all(line.by for line in verdict.failed)


@pytest.mark.parametrize(
    ("one", "other", "of", "worse", "why"),
    [
        (50, 50, 50, False, "the same"),
        (40, 50, 50, True, "ten of fifty"),
        (48, 50, 50, False, "within the margin"),
        (4, 5, 5, False, "twenty points, but one text of five may be chance"),
        (50, 40, 50, False, "better"),
    ],
)
def test_a_slice_is_worse(one: int, other: int, of: int, worse: bool, why: str) -> None:
    less = difference(outcomes(one, of), outcomes(other, of), "resolved", confidence=0.99)
    assert is_worse(less, 0.08) is worse, why


def test_difference_between_groups_is_fairlearns() -> None:
    values = [True, True, True, False, False, True]
    found, shares = group_difference(values, ["a", "a", "b", "b", "c", "c"])
    assert (found, shares) == (0.5, {"a": 1.0, "b": 0.5, "c": 0.5})


TEXT = st.sampled_from(["one", "two", "three", "four"])
EXAMPLES = st.lists(
    st.builds(Example, TEXT, st.just("greeting"), st.just("en"), TEXT, st.just(""), st.booleans())
)


@given(EXAMPLES, EXAMPLES)
def test_leaks_are_of_texts_and_of_templates(tested: list[Example], learnt: list[Example]) -> None:
    seen, bent, of = leaks({"t": tested}, learnt)["t"]
    assert of == len(tested) and seen + bent <= of
    groups, texts = {e.group for e in learnt}, {e.text for e in learnt}
    clean = [e for e in tested if e.group not in groups and e.text not in texts]
    assert seen + bent == of - len(clean)
