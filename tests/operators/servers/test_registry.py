"""The ModelServers that there are, by events as kopf tells them: what is read, what is kept, who is forgotten."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest

from operators.servers import registry
from operators.servers.registry import Registry
from operators.servers.server import Marks, Server
from operators.signals.values import Key
from switchboard.kube import Object

SPEC: Object = {
    "model": {"name": "chat-intent", "alias": "champion"},
    "image": "switchboard.dev/switchboard:0.1.0",
    "dataClass": "internal",
    "scaling": {"maxReplicas": 10},
}
STATUS: Object = {
    "observedGeneration": 2,
    "desiredReplicas": 4,
    "load": "50%",
    "lastDecisions": [
        {"at": "2026-01-05T08:00:00Z", "before": 3, "wanted": 4, "sentence": "from 3 to 4"},
        {"at": "2026-01-05T07:00:00Z", "before": 2, "wanted": 3, "sentence": "from 2 to 3"},
    ],
}


def model_server(
    name: str = "chat", *, uid: str = "u-1", status: Object | None = None, **changes: Any
) -> Object:
    meta = {
        "name": name,
        "namespace": "core",
        "uid": uid,
        "generation": 2,
        "resourceVersion": "9",
        **changes.pop("meta", {}),
    }
    made: Object = {"metadata": meta, "spec": {**copy.deepcopy(SPEC), **changes}}
    return made if status is None else {**made, "status": status}


def one_of(known: Registry, name: str = "chat") -> Server:
    return known.servers[name]


def test_a_new_one() -> None:
    known = Registry()
    known.put(model_server(status=STATUS))
    one = one_of(known)
    assert one.spec is not None
    assert (one.key, one.generation, one.problem) == (Key("chat"), 2, None)
    assert one.status is not None
    assert (one.status.desired_replicas, [each.wanted for each in one.changes]) == (4, [4, 3])
    assert "resourceVersion" not in one.object["metadata"]  # it changes with each status
    assert one.reference()["metadata"]["uid"] == "u-1"


def test_views_are_read_as_dictionaries() -> None:
    """kopf gives read-only views; what is kept has to be of plain values, since it is made into JSON."""
    known = Registry()
    body = model_server(meta={"labels": {"a": "b"}})
    known.put(types.MappingProxyType({key: types.MappingProxyType(value) for key, value in body.items()}))
    assert one_of(known).spec is not None
    assert type(one_of(known).object["metadata"]) is dict


def test_a_change_keeps_what_is_remembered() -> None:
    known = Registry()
    known.put(model_server())
    one = one_of(known)
    one.target, one.marks, one.retry_at = 5, Marks("a", "b"), 99.0
    known.put(model_server(scaling={"maxReplicas": 20}, meta={"generation": 3}))
    assert one_of(known) is one
    assert one.spec is not None
    assert (one.spec.scaling.max_replicas, one.target, one.generation) == (20, 5, 3)
    assert (one.marks, one.retry_at) == (None, 0.0)  # its objects may have to be others


@pytest.mark.parametrize(
    ("changes", "outdated"),
    [
        pytest.param({"status": STATUS}, False, id="a status"),
        pytest.param({"meta": {"resourceVersion": "10"}}, False, id="another version"),
        pytest.param({"meta": {"annotations": {"team": "models"}}}, True, id="an annotation: it goes along"),
        pytest.param({"meta": {"labels": {"team": "models"}}}, True, id="a label"),
        pytest.param({"image": "other:1"}, True, id="the spec, without a generation"),
        pytest.param({"meta": {"generation": 3}}, True, id="a generation"),
    ],
)
def test_what_may_change_its_objects(changes: dict[str, Any], outdated: bool) -> None:
    known = Registry()
    known.put(model_server())
    one = one_of(known)
    one.marks = Marks("a", "b")
    known.put(model_server(**changes))
    assert (one.marks is None) is outdated


def test_a_status_of_another_is_known_to_who_leads_next() -> None:
    """Who stands by sees what the leader writes, and goes on with it."""
    known = Registry()
    known.put(model_server())
    one = one_of(known)
    known.put(model_server(status=STATUS))
    assert list(one.changes) == []
    one.forget()
    assert one.status is not None
    assert (one.status.load, [each.wanted for each in one.changes]) == ("50%", [4, 3])


def test_a_status_that_somebody_changed_is_not_taken_for_ours() -> None:
    known = Registry()
    known.put(model_server(status=STATUS))
    one = one_of(known)
    known.put(model_server(status={**STATUS, "desiredReplicas": 99}))
    assert one.status is not None
    assert (
        one.status.desired_replicas == 99
    )  # another than what is to be said: it is written at the next tick
    one.busy = True
    known.put(model_server(status=STATUS))
    assert one.status.desired_replicas == 99  # while one is being written, the answer says what there is


def test_another_of_the_same_name_is_another() -> None:
    known = Registry()
    known.put(model_server(status=STATUS))
    first = one_of(known)
    first.target = 5
    known.put(model_server(uid="u-2"))
    second = one_of(known)
    assert second is not first
    assert (second.target, second.status, list(second.changes)) == (None, None, [])
    known.remove(model_server())  # the first one's end is told late
    assert one_of(known) is second
    known.drop(first)
    assert one_of(known) is second
    known.drop(second)
    known.drop(second)
    assert known.servers == {}


def test_one_that_is_deleted_is_gone() -> None:
    known = Registry()
    known.put(model_server())
    known.put(model_server("voice", uid="u-2"))
    known.remove(model_server())
    known.remove(model_server())
    assert set(known.servers) == {"voice"}
    known.put(model_server("voice", uid="u-2", meta={"deletionTimestamp": "2026-01-05T08:00:00Z"}))
    assert known.servers == {}
    known.put(model_server(meta={"deletionTimestamp": "2026-01-05T08:00:00Z"}))
    assert known.servers == {}


WRONG: list[Any] = [
    pytest.param({"scaling": {}}, "spec.scaling.maxReplicas: Field required", id="missing"),
    pytest.param(
        {"scaling": {"maxReplicas": 0}}, "spec.scaling.maxReplicas: Input should be greater", id="too small"
    ),
    pytest.param(
        {"scaling": {"maxReplicas": 2, "minReplicas": 3}},
        "spec.scaling: minReplicas 3 is more than",
        id="both",
    ),
    pytest.param({"colour": "red"}, "spec.colour: Extra inputs are not permitted", id="unknown"),
    pytest.param({"replicas": 11}, "spec: replicas 11 is more than maxReplicas 10", id="across"),
    pytest.param({"scaling": None}, "spec.scaling: ", id="null"),
    pytest.param({"scaling": [1]}, "spec.scaling: ", id="a list"),
    pytest.param(
        {"scaling": {"maxReplicas": 2, "schedules": [{"name": "x"}]}},
        "spec.scaling.schedules.0.start: ",
        id="deep",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_a_spec_that_can_not_be_read(changes: dict[str, Any], words: str) -> None:
    known = Registry()
    known.put(model_server(**changes))
    one = one_of(known)
    assert one.spec is None
    assert one.problem is not None
    assert one.problem.startswith(words)
    known.put(model_server())
    assert (one.spec is not None, one.problem) == (True, None)


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_the_one_before_stays_in_force(changes: dict[str, Any], words: str) -> None:
    known = Registry()
    known.put(model_server())
    one, before = one_of(known), one_of(known).spec
    known.put(model_server(**changes))
    assert one.spec == before
    assert (one.problem or "").startswith(words)


@pytest.mark.parametrize(
    "status",
    [{"load": 5}, {"conditions": "none"}, {"colour": "red"}, {"desiredReplicas": -1}, None, {}, "none", []],
)
def test_a_status_that_can_not_be_read_is_none(status: Any) -> None:
    known = Registry()
    known.put({**model_server(), "status": status})
    assert one_of(known).status is None


@pytest.mark.parametrize("spec", [{}, {"model": 5}, {"scaling": "x"}])
def test_a_problem_is_a_sentence(spec: Object) -> None:
    found, problem = registry.read(spec)
    assert found is None
    assert problem is not None
    assert problem.startswith("spec.")


def test_a_list_is_of_all_that_there_are() -> None:
    """Whoever has just begun doesn't take a ModelServer for deleted that it hasn't been told of yet."""
    known = Registry()
    for name in ("chat", "voice"):
        known.put(model_server(name, uid=f"u-{name}"))
    chat = one_of(known)
    assert not known.synced
    known.fill([model_server("chat", uid="u-chat"), model_server("text", uid="u-text")])
    assert known.synced
    assert set(known.servers) == {"chat", "text"}
    assert one_of(known) is chat, "what is remembered of it stays"
