"""What to do next for a pod: cases, and that every life of a pod comes to its end in the right order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.node.lifecycle import (
    POD_ENDS,
    Action,
    BackOff,
    Finish,
    Prepare,
    Situation,
    Start,
    Stop,
    decide,
)
from infra.local.node.podspec import ContainerKind
from infra.local.node.records import Container, Ended, Problem

NOW = 100.0


def waiting(name: str, kind: ContainerKind = "main", retry_at: float = 0.0) -> Container:
    return Container(name=name, kind=kind, retry_at=retry_at)


def running(name: str, kind: ContainerKind = "main", started: bool = True, busy: bool = False) -> Container:
    return Container(
        name=name, kind=kind, phase="running", run_id="r", started=started, ready=started, busy=busy
    )


def exited(name: str, code: int, kind: ContainerKind = "main", retry_at: float = 0.0) -> Container:
    ended = Ended(run_id="r", exit_code=code, reason="x", finished_at=datetime.now(UTC))
    return Container(name=name, kind=kind, phase="exited", run_id="r", ended=ended, retry_at=retry_at)


def situation(
    *containers: Container, policy: str = "Always", initialized: bool = True, **more: bool
) -> Situation:
    return Situation(
        policy=policy,
        containers=containers,
        prepared=more.pop("prepared", True),
        initialized=initialized,
        **more,
    )


def act(
    *containers: Container, policy: str = "Always", initialized: bool = True, **more: bool
) -> list[Action]:
    return decide(NOW, situation(*containers, policy=policy, initialized=initialized, **more)).actions


CASES: list[tuple[str, list[Action], list[Action]]] = [
    ("first its volumes", act(waiting("a"), initialized=False, prepared=False), [Prepare()]),
    ("a refused pod waits", act(waiting("a"), prepared=False, refused=True), []),
    (
        "main containers start in their order",
        act(waiting("a"), waiting("b"), initialized=False),
        [Start("a")],
    ),
    (
        "the next waits for the postStart hook of the one before",
        act(running("a", busy=True), waiting("b")),
        [],
    ),
    ("and has its turn when that is done", act(running("a"), waiting("b")), [Start("b")]),
    (
        "or when the one before can't be started now",
        act(waiting("a", retry_at=NOW + 5), waiting("b")),
        [Start("b")],
    ),
    (
        "one init container at a time",
        act(waiting("i", "init"), waiting("j", "init"), waiting("a"), initialized=False),
        [Start("i")],
    ),
    (
        "the next when it is done",
        act(exited("i", 0, "init"), waiting("j", "init"), waiting("a"), initialized=False),
        [Start("j")],
    ),
    ("mains when all are done", act(exited("i", 0, "init"), waiting("a"), initialized=False), [Start("a")]),
    (
        "a failed init container again",
        act(exited("i", 1, "init"), waiting("a"), initialized=False),
        [Start("i")],
    ),
    (
        "or never again",
        act(exited("i", 1, "init"), waiting("a"), policy="Never", initialized=False),
        [Finish(failed=True)],
    ),
    ("a sidecar goes first", act(waiting("s", "sidecar"), waiting("a"), initialized=False), [Start("s")]),
    (
        "until it has started",
        act(running("s", "sidecar", started=False), waiting("a"), initialized=False),
        [],
    ),
    ("then the mains", act(running("s", "sidecar"), waiting("a"), initialized=False), [Start("a")]),
    ("a sidecar is kept running", act(exited("s", 0, "sidecar"), running("a"), policy="Never"), [Start("s")]),
    ("Always: again after success", act(exited("a", 0)), [Start("a")]),
    ("OnFailure: again after failure", act(exited("a", 1), policy="OnFailure"), [Start("a")]),
    ("OnFailure: over after success", act(exited("a", 0), policy="OnFailure"), [Finish(failed=False)]),
    ("Never: failed", act(exited("a", 0), exited("b", 1), policy="Never"), [Finish(failed=True)]),
    ("one still runs", act(exited("a", 1), running("b"), policy="Never"), []),
    ("not before its time", act(exited("a", 1, retry_at=NOW + 5)), []),
    ("not twice at once", act(Container(name="a", kind="main", busy=True)), []),
    (
        "sidecars end after the mains",
        act(running("s", "sidecar"), exited("a", 0), policy="Never"),
        [Stop("s", POD_ENDS)],
    ),
    (
        "the last sidecar first",
        act(running("s", "sidecar"), running("t", "sidecar"), exited("a", 0), policy="Never"),
        [Stop("t", POD_ENDS)],
    ),
    (
        "an end stops mains together, sidecars later",
        act(running("s", "sidecar"), running("a"), running("b"), ending=True),
        [Stop("a", POD_ENDS), Stop("b", POD_ENDS)],
    ),
    ("an end waits for what is being stopped", act(running("a", busy=True), ending=True), []),
    ("an end of what never ran", act(waiting("a"), prepared=False, ending=True), [Finish(failed=True)]),
    (
        "an end of a pod in its init containers",
        act(running("i", "init"), waiting("a"), ending=True),
        [Stop("i", POD_ENDS)],
    ),
    ("an end after success", act(exited("a", 0), ending=True), [Finish(failed=False)]),
]


@pytest.mark.parametrize(("actions", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_next_steps(actions: list[Action], wanted: list[Action]) -> None:
    assert actions == wanted


def test_a_failed_probe_stops_a_container_of_a_pod_that_goes_on() -> None:
    sick, why = running("a"), Problem(reason="Unhealthy", message="no answer")
    sick.stop_because = why
    assert act(sick, running("b")) == [Stop("a", why)]


def test_when_to_look_again() -> None:
    found = decide(NOW, situation(exited("a", 1, retry_at=NOW + 5), exited("b", 1, retry_at=NOW + 3)))
    assert found.wake_at == NOW + 3
    unprepared = Situation(policy="Always", containers=[waiting("a")], prepared=False, prepare_at=NOW + 1)
    assert decide(NOW, unprepared).wake_at == NOW + 1


def test_back_off_doubles_from_nothing_to_its_most_and_starts_anew() -> None:
    back_off, delay_s, waits = BackOff(first_s=1, most_s=8), 0.0, []
    for _ in range(6):
        wait_s, delay_s = back_off.next(delay_s, ran_s=0.1)
        waits.append(wait_s)
    assert waits == [0, 1, 2, 4, 8, 8]
    assert back_off.next(delay_s, ran_s=16) == (0, 1)


KINDS = st.lists(st.sampled_from(["init", "sidecar"]), max_size=4)


@given(KINDS, st.integers(1, 3), st.sampled_from(["Never", "OnFailure"]), st.data())
def test_every_life_ends_in_order(
    kinds: list[ContainerKind], mains: int, policy: str, data: st.DataObject
) -> None:
    """Played through with any exit codes: nothing starts before what it waits for, and the pod comes to an end."""
    containers = [waiting(f"i{n}", kind) for n, kind in enumerate(kinds)]
    containers += [waiting(f"m{n}") for n in range(mains)]
    by_name, initialized, fails_left = {c.name: c for c in containers}, False, 5
    for _ in range(200):
        found = decide(NOW, Situation(policy, containers, prepared=True, initialized=initialized))
        initialized = found.initialized
        if found.actions and isinstance(found.actions[0], Finish):
            assert not any(c.phase == "running" for c in containers)
            assert found.actions == [Finish(not all(c.succeeded for c in containers if c.kind == "main"))]
            return
        for action in found.actions:
            assert isinstance(action, Start | Stop)
            one = by_name[action.name]
            if isinstance(action, Stop):
                assert one.kind == "sidecar"
                assert not any(c.phase == "running" for c in containers if c.kind == "main")
                by_name[one.name].__dict__.update(exited(one.name, 0, one.kind).__dict__)
                continue
            before = containers[: containers.index(one)] if one.kind != "main" else containers[: len(kinds)]
            assert all(c.succeeded or c.kind == "sidecar" for c in before if c.kind != "main")
            one.__dict__.update(running(one.name, one.kind).__dict__)
        for one in containers:
            if one.phase == "running" and one.kind != "sidecar":
                code = data.draw(st.sampled_from([0, 1])) if fails_left else 0
                fails_left -= code
                one.__dict__.update(exited(one.name, code, one.kind).__dict__)
    pytest.fail("the pod never came to an end")
