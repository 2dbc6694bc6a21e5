"""A run's report: what it says, that it needs nothing from elsewhere, and that no text of a run becomes markup."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree

import pytest

from loadtests import report
from loadtests.faults import Name
from loadtests.figures import figures
from loadtests.observing import Look
from loadtests.outcomes import Happened, Outcome
from loadtests.report import Shown
from loadtests.scenario import Scenario
from loadtests.starting import Start
from loadtests.verdict import Answer, Finding, Verdict
from loadtests.verdict import Outcome as Ended
from switchboard.requests import Request

BEGUN = 1_800_000_000.0
SCENARIO = Scenario.model_validate(
    {"summary": "Ten <b>seconds</b>.", "load": [{"rate": 20, "for": 10.0}], "claims": {"availability": 0.9}}
)


def requests(failure: str | None = None) -> list[Request]:
    made = [Request(BEGUN + number / 20, 0.02, None, "7", "chat en") for number in range(199)]
    return [*made, Request(BEGUN + 9.95, 5.0, failure, "", "edge cn-beijing zh", 0.0, "503 <overloaded>")]


def shown(verdict: Verdict, failure: str | None = None) -> Shown:
    found = requests(failure)
    return Shown(
        name="test",
        target="http://127.0.0.1:8080",
        scenario=SCENARIO,
        verdict=verdict,
        figures=figures(found, 10.0),
        requests=found,
        begun_s=BEGUN,
        start=Start(4.0, 3),
        looks=[
            Look(BEGUN + second, 2, 1 + second // 5, 10.0 if second > 5 else None) for second in range(10)
        ],
        faults=[KILLED, UNCAUSED],
    )


KILLED = Outcome(
    happened=Happened(name=Name.KILL_POD, begun_s=BEGUN + 3, ended_s=BEGUN + 5, target="pod/<chat>"),
    requests=140,
    failed=1,
    first_failed=2,
    recovered_s=1.5,
    longest_s=1.5,
    out_s=2,
)
UNCAUSED = Outcome(happened=Happened(name=Name.CUT_EDGE, problem="it takes <root>"))
HOLDS = Finding(claim="availability ≥ 90 %", answer=Answer.HOLDS, why="1 of 200 requests failed", bound=0.97)
REFUTED = Finding(claim="p99 ≤ 300 ms", answer=Answer.REFUTED, why="too <slow>", bound=0.5)
UNPROVEN = Finding(claim="capacity", answer=Answer.NOT_PROVEN, why="never held")


def verdict(outcome: Ended, *findings: Finding, **more: object) -> Verdict:
    fields = {"outcome": outcome, "sentence": "what it <came> to", "findings": list(findings), **more}
    return Verdict.model_validate(fields)


def test_the_verdict_comes_first_and_all_is_told() -> None:
    page = report.document(shown(verdict(Ended.FAILED, HOLDS, REFUTED), "no answer in 5 s"))
    words = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    places = [
        words.index(one) for one in ("what it &lt;came&gt; to", "too &lt;slow&gt;", "What was measured")
    ]
    assert places == sorted(places)
    for said in ("Load test test: fail", "edge cn-beijing zh", "no answer in 5 s", "503 &lt;overloaded&gt;"):
        assert said in words
    assert "Ten &lt;b&gt;seconds" in words


def test_the_picture_shows_replicas_weights_and_what_was_done() -> None:
    page = report.document(shown(verdict(Ended.PASSED, HOLDS)))
    picture = page[page.index("<svg") : page.index("</svg>")]
    for said in ("requests/s", "failed/s", "replicas", "candidate, %", "kill-pod"):
        assert f"<!-- {said} -->" in picture or said in picture
    without = dataclasses.replace(shown(verdict(Ended.PASSED, HOLDS)), looks=(), faults=())
    assert "candidate, %" not in report.document(without)


def test_it_is_read_offline() -> None:
    page = report.document(shown(verdict(Ended.PASSED, HOLDS)))
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "<script" not in page


def test_a_part_of_a_run_is_marked_as_such() -> None:
    page = report.document(shown(verdict(Ended.NOT_PROVEN, UNPROVEN, partial=True)))
    assert "The run was ended before its time" in page


@pytest.mark.parametrize(
    ("made", "counts"),
    [
        (verdict(Ended.FAILED, HOLDS, REFUTED, UNPROVEN), ("3", "0", "1", "1")),
        (verdict(Ended.INVALID, HOLDS, REFUTED), ("2", "2", "0", "0")),
        (verdict(Ended.NOT_PROVEN), ("1", "0", "0", "1")),
        (verdict(Ended.PASSED, HOLDS), ("1", "0", "0", "0")),
        (verdict(Ended.NOT_PROVEN, HOLDS, UNPROVEN, partial=True), ("2", "0", "0", "2")),
        (verdict(Ended.FAILED, HOLDS, REFUTED, partial=True), ("2", "0", "1", "1")),
    ],
)
def test_junit(made: Verdict, counts: tuple[str, ...]) -> None:
    suite = ElementTree.fromstring(report.junit(shown(made)))  # noqa: S314 - our own
    assert suite.tag == "testsuite"
    assert tuple(suite.get(name) for name in ("tests", "errors", "failures", "skipped")) == counts
    assert len(suite.findall("testcase")) == int(counts[0])


def test_each_fault_is_told_with_what_it_came_to() -> None:
    page = report.document(shown(verdict(Ended.PASSED, HOLDS)))
    words = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)
    assert "<h2>Faults</h2>" in words
    assert "SIGKILL to all of a chat pod: pod/&lt;chat&gt;" in words
    row = "<td class=n>140<td class=n>1<td class=n>2<td class=n>1.5<td class=n>2"
    assert row in words
    assert "it takes &lt;root&gt;" in words
    none = dataclasses.replace(shown(verdict(Ended.PASSED, HOLDS)), faults=())
    assert "<h2>Faults</h2>" not in report.document(none)
