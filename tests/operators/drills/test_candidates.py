"""The folder of bad candidates, and what a file has to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators.drills.candidates import Candidate, Fault, Training, chosen, read
from switchboard.errors import SwitchboardError


def test_there_is_one_for_all_that_can_go_wrong() -> None:
    found = {one.name: one for one in read()}
    assert list(found)[-1] == "good", "it becomes the champion: last"
    assert found.pop("good").ends == "Promoted"
    assert {one.ends for one in found.values()} == {"RolledBack"}
    assert all(one.found_by for one in found.values())
    assert all((one.fault == Fault()) != (one.training == Training()) for one in found.values())
    kinds = {key for one in found.values() for key in one.fault.model_dump(exclude_defaults=True)}
    assert kinds == set(Fault.model_fields), "each fault has its candidate"
    kinds = {key for one in found.values() for key in one.training.model_dump(exclude_defaults=True)}
    assert kinds == set(Training.model_fields)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fault: {fails: 0.5}", "one.yaml: what: Field required"),
        ("what: x\nfault: {fails: 2}", "one.yaml: fault.fails: Input should be less than or equal to 1"),
        ("what: x\nfault: {breaks: true}", "one.yaml: fault.breaks: Extra inputs are not permitted"),
        ("what: x\ntraining: {confusedLanguage: fr}", "fr is no language of ours: en, zh"),
        ("what: x\ntraining: {confusedIntent: hours, takenFor: greeting}", "hours is no intent"),
        ("what: x\ntraining: {confusedIntent: greeting}", "say confusedIntent and takenFor"),
        ("what: x\nfoundBy: [luck]", "one.yaml: foundBy.0"),
        ("what: x\nends: Refused", "one.yaml: ends: Input should be 'RolledBack' or 'Promoted'"),
        ("- what", "one.yaml is no candidate"),
        ("what: [", "one.yaml is no candidate: while parsing"),
    ],
)
def test_what_is_no_candidate_is_said(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(SwitchboardError) as error:
        read(tmp_path)
    assert says in str(error.value)


def test_names(tmp_path: Path) -> None:
    assert [one.name for one in chosen(["good", "slow"])] == ["slow", "good"]
    with pytest.raises(SwitchboardError, match="there is no candidate quick in candidates/"):
        chosen(["slow", "quick"])
    with pytest.raises(SwitchboardError, match="there are no candidates"):
        read(tmp_path)


def test_what_it_is_made_by_is_its_digest() -> None:
    one = Candidate(name="a", what="b", fault=Fault(fails=0.1))
    assert one.sha256 == one.model_copy().sha256
    assert one.sha256 != one.model_copy(update={"fault": Fault(fails=0.2)}).sha256
