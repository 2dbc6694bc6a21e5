"""What NetworkPolicies allow: the API's rules as a table of cases, and what holds for all policies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.netpol import Outside, Peer, Pod, judge, selects

Object = dict[str, Any]
NAMESPACES = {"ours": {"team": "a"}, "theirs": {"team": "b"}}

SERVER = Pod("ours", {"app": "server"}, "10.1.0.1", "server", {("TCP", "http"): 8080, ("UDP", "dns"): 53})
CLIENT = Pod("ours", {"app": "client", "tier": "edge"}, "10.1.0.2", "client")
STRANGER = Pod("theirs", {"app": "client"}, "10.2.0.2", "stranger")
NEAR, FAR = Outside("192.168.1.9"), Outside("8.8.8.8")


def policy(
    name: str = "p",
    *,
    of: Object | None = None,
    namespace: str = "ours",
    types: list[str] | None = None,
    **rules: list[Object],
) -> Object:
    spec: Object = {"podSelector": {"matchLabels": {"app": "server"}} if of is None else of, **rules}
    if types is not None:
        spec["policyTypes"] = types
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def from_(*peers: Object, ports: list[Object] | None = None) -> Object:
    """A policy of the server with one ingress rule."""
    return policy(ingress=[{"from": list(peers), **({"ports": ports} if ports is not None else {})}])


PODS_CLIENT = {"podSelector": {"matchLabels": {"app": "client"}}}
TEAM_B = {"namespaceSelector": {"matchLabels": {"team": "b"}}}
BLOCK = {"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.7.0/24"]}}
TO_CLIENT = policy("out", of={}, types=["Egress"], egress=[{"to": [PODS_CLIENT]}])

CASES: dict[str, tuple[list[Object], Peer, Peer, int, str, bool]] = {
    "no policy at all: everything passes": ([], FAR, SERVER, 1, "TCP", True),
    "a policy of another namespace isolates nobody here": (
        [policy(of={}, namespace="theirs")], CLIENT, SERVER, 1, "TCP", True),
    "a policy that selects other pods isolates nobody": (
        [policy(of={"matchLabels": {"app": "x"}})], CLIENT, SERVER, 1, "TCP", True),
    "without types and rules a policy denies what comes": ([policy()], CLIENT, SERVER, 1, "TCP", False),
    "and nothing that goes": ([policy()], SERVER, CLIENT, 1, "TCP", True),
    "with an egress rule and no types it has both directions": (
        [policy(egress=[{}])], CLIENT, SERVER, 1, "TCP", False),
    "an empty list of egress rules is none": ([policy(egress=[])], SERVER, CLIENT, 1, "TCP", True),
    "only Egress: what comes is free": (
        [policy(types=["Egress"])], CLIENT, SERVER, 1, "TCP", True),
    "only Egress: what goes is denied": (
        [policy(types=["Egress"])], SERVER, CLIENT, 1, "TCP", False),
    "rules of a direction that the types leave out don't count": (
        [policy(types=["Egress"], ingress=[{"from": [BLOCK]}])], CLIENT, SERVER, 1, "TCP", True),
    "an empty pod selector selects every pod of the namespace": (
        [policy(of={})], STRANGER, CLIENT, 1, "TCP", False),
    "an empty rule lets everything pass": ([policy(ingress=[{}])], FAR, SERVER, 9, "UDP", True),
    "an empty list of peers is everyone": ([policy(ingress=[{"from": []}])], FAR, SERVER, 9, "TCP", True),
    "pods by label, of the policy's namespace": ([from_(PODS_CLIENT)], CLIENT, SERVER, 1, "TCP", True),
    "pods by label aren't those of other namespaces": ([from_(PODS_CLIENT)], STRANGER, SERVER, 1, "TCP", False),
    "pods by label aren't addresses": ([from_({"podSelector": {}})], NEAR, SERVER, 1, "TCP", False),
    "an empty pod selector is all pods of this namespace": (
        [from_({"podSelector": {}})], STRANGER, SERVER, 1, "TCP", False),
    "namespaces by label": ([from_(TEAM_B)], STRANGER, SERVER, 1, "TCP", True),
    "namespaces by label aren't the own one": ([from_(TEAM_B)], CLIENT, SERVER, 1, "TCP", False),
    "namespaces by the name that the API server labels them with": (
        [from_({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "theirs"}}})],
        STRANGER, SERVER, 1, "TCP", True),
    "an empty namespace selector is all namespaces": (
        [from_({"namespaceSelector": {}})], STRANGER, SERVER, 1, "TCP", True),
    "an empty namespace selector is pods only": (
        [from_({"namespaceSelector": {}})], NEAR, SERVER, 1, "TCP", False),
    "pods and namespaces in one peer must both hold": (
        [from_({**TEAM_B, "podSelector": {"matchLabels": {"app": "x"}}})], STRANGER, SERVER, 1, "TCP", False),
    "pods and namespaces in two peers: either": (
        [from_(TEAM_B, {"podSelector": {"matchLabels": {"app": "x"}}})], STRANGER, SERVER, 1, "TCP", True),
    "an address in a block": ([from_(BLOCK)], NEAR, SERVER, 1, "TCP", True),
    "an address out of it": ([from_(BLOCK)], FAR, SERVER, 1, "TCP", False),
    "an address in the block's exception": ([from_(BLOCK)], Outside("192.168.7.1"), SERVER, 1, "TCP", False),
    "an exception of one peer doesn't bind another": (
        [from_(BLOCK, {"ipBlock": {"cidr": "192.168.7.0/30"}})], Outside("192.168.7.1"), SERVER, 1, "TCP", True),
    "a block is met by a pod's address (as in the conformance tests)": (
        [from_({"ipBlock": {"cidr": "10.2.0.0/24"}})], STRANGER, SERVER, 1, "TCP", True),
    "IPv6": ([from_({"ipBlock": {"cidr": "fd00::/8"}})], Outside("fd00::7"), SERVER, 1, "TCP", True),
    "an IPv4 address is in no IPv6 block": (
        [from_({"ipBlock": {"cidr": "::/0"}})], NEAR, SERVER, 1, "TCP", False),
    "a port": ([from_(ports=[{"port": 8080}])], CLIENT, SERVER, 8080, "TCP", True),
    "another port": ([from_(ports=[{"port": 8080}])], CLIENT, SERVER, 8081, "TCP", False),
    "a port is TCP's unless it says so": ([from_(ports=[{"port": 8080}])], CLIENT, SERVER, 8080, "UDP", False),
    "a port without number is every port of its protocol": (
        [from_(ports=[{"protocol": "UDP"}])], CLIENT, SERVER, 4, "UDP", True),
    "a range of ports": ([from_(ports=[{"port": 80, "endPort": 90}])], CLIENT, SERVER, 90, "TCP", True),
    "beyond the range": ([from_(ports=[{"port": 80, "endPort": 90}])], CLIENT, SERVER, 91, "TCP", False),
    "a named port": ([from_(ports=[{"port": "http"}])], CLIENT, SERVER, 8080, "TCP", True),
    "a named port is not another's number": ([from_(ports=[{"port": "http"}])], CLIENT, SERVER, 53, "TCP", False),
    "a name that the pod doesn't have": ([from_(ports=[{"port": "web"}])], CLIENT, SERVER, 8080, "TCP", False),
    "a name of another protocol": (
        [from_(ports=[{"port": "dns", "protocol": "TCP"}])], CLIENT, SERVER, 53, "TCP", False),
    "a named port on the way out is the destination's": (
        [policy(of={"matchLabels": {"app": "client"}}, types=["Egress"],
                egress=[{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}])],
        CLIENT, SERVER, 8080, "TCP", True),
    "addresses have no named ports": (
        [policy(types=["Egress"], egress=[{"ports": [{"port": "http"}]}])], SERVER, NEAR, 8080, "TCP", False),
    "peer and port must hold in one rule": (
        [policy(ingress=[{"from": [PODS_CLIENT], "ports": [{"port": 1}]}, {"from": [BLOCK]}])],
        CLIENT, SERVER, 2, "TCP", False),
    "policies add up": ([policy(), from_(PODS_CLIENT)], CLIENT, SERVER, 1, "TCP", True),
    "both ends must agree: the source doesn't": (
        [from_(PODS_CLIENT), policy("q", of={}, types=["Egress"])], CLIENT, SERVER, 1, "TCP", False),
    "both ends must agree: the destination doesn't": (
        [policy(), policy("q", of={}, types=["Egress"], egress=[{}])], CLIENT, SERVER, 1, "TCP", False),
    "the other way round is another connection": ([TO_CLIENT], CLIENT, SERVER, 1, "TCP", False),
    "a pod reaches itself": ([policy(of={}, types=["Ingress", "Egress"])], SERVER, SERVER, 1, "TCP", True),
    "matchExpressions: In": (
        [policy(ingress=[{"from": [{"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["a", "client"]}]}}]}])],
        CLIENT, SERVER, 1, "TCP", True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_rules_of_the_api(case: str) -> None:
    policies, source, destination, port, protocol, allowed = CASES[case]
    verdict = judge(policies, NAMESPACES, source, destination, port, protocol)
    assert bool(verdict) is allowed, verdict.reason


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ["a"], {"k": "a"}, True),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "b"}, True),
        ("NotIn", ["a"], {}, True),
        ("NotIn", ["a"], {"k": "a"}, False),
        ("Exists", None, {"k": ""}, True),
        ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True),
        ("DoesNotExist", None, {"k": ""}, False),
    ],
)
def test_expressions(operator: str, values: list[str] | None, labels: dict[str, str], expected: bool) -> None:
    expression = {"key": "k", "operator": operator, **({"values": values} if values else {})}
    assert selects({"matchExpressions": [expression]}, labels) is expected
    assert selects({"matchExpressions": [expression], "matchLabels": {"never": "there"}}, labels) is False


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="'Gt'"):
        selects({"matchExpressions": [{"key": "k", "operator": "Gt"}]}, {})


def test_the_verdict_names_the_policies_and_the_direction() -> None:
    verdict = judge([policy("closed")], NAMESPACES, CLIENT, SERVER, 1)
    assert not verdict
    assert "ingress" in verdict.reason and "closed" in verdict.reason


def test_a_pod_of_a_workload_has_its_templates_labels_and_ports() -> None:
    container = {"name": "c", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    workload = {
        "metadata": {"name": "w", "namespace": "ours", "labels": {"app": "b"}},
        "spec": {"template": template},
    }
    assert Pod.of(workload) == Pod("ours", {"app": "a"}, None, "w", {("TCP", "http"): 80})

    scheduled = {"metadata": workload["metadata"], "spec": {"jobTemplate": {"spec": workload["spec"]}}}
    assert Pod.of(scheduled) == Pod.of(workload)
    bare = {"metadata": {"name": "w"}, "spec": {"template": {"spec": {"containers": []}}}}
    assert Pod.of(bare) == Pod("default", {}, None, "w")


def test_two_replicas_are_not_one_pod() -> None:
    closed = [policy(of={}, types=["Ingress", "Egress"])]
    workload = {
        "metadata": {"name": "w", "namespace": "ours"},
        "spec": {"template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}},
    }
    one, other = Pod.of(workload), Pod.of(workload)
    assert not judge(closed, NAMESPACES, one, other, 1)
    assert judge(closed, NAMESPACES, one, one, 1)
    first, second = Pod.of(workload, ip="10.1.0.8"), Pod.of(workload, ip="10.1.0.9")
    assert not judge(closed, NAMESPACES, first, second, 1)
    assert judge(closed, NAMESPACES, first, Pod.of(workload, ip="10.1.0.8"), 1)


# --- what holds for all policies ---

_words = st.sampled_from(["a", "b"])
_selectors = st.one_of(
    st.just({}),
    st.builds(lambda value: {"matchLabels": {"app": value}}, _words),
    st.builds(lambda op, value: {"matchExpressions": [{"key": "app", "operator": op, "values": [value]}]},
              st.sampled_from(["In", "NotIn"]), _words),
)  # fmt: skip
_blocks = st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32"]).map(lambda c: {"ipBlock": {"cidr": c}})
_peers = st.one_of(
    _blocks,
    st.builds(lambda s: {"podSelector": s}, _selectors),
    st.builds(lambda s, n: {"podSelector": s, "namespaceSelector": n}, _selectors,
              st.sampled_from([{}, {"matchLabels": {"team": "a"}}])),
)  # fmt: skip
_ports = st.sampled_from([{"port": 1}, {"port": "http"}, {"port": 1, "endPort": 3}, {"protocol": "UDP"}])


def _rules(key: str) -> st.SearchStrategy[list[Object]]:
    return st.lists(
        st.fixed_dictionaries(
            {}, optional={key: st.lists(_peers, max_size=2), "ports": st.lists(_ports, max_size=2)}
        ),
        max_size=2,
    )


_policies = st.builds(
    lambda of, namespace, types, ingress, egress: policy(
        of=of, namespace=namespace, types=types, ingress=ingress, egress=egress
    ),
    _selectors,
    st.sampled_from(["ours", "theirs"]),
    st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"], None]),
    _rules("from"),
    _rules("to"),
)
_pods = st.builds(
    lambda namespace, word, ip: Pod(namespace, {"app": word}, ip, word, {("TCP", "http"): 2}),
    st.sampled_from(["ours", "theirs"]),
    _words,
    st.sampled_from(["10.0.0.1", "10.0.0.2", "11.0.0.1"]),
)
_wanted = st.tuples(_pods, _pods, st.sampled_from([1, 2, 4]), st.sampled_from(["TCP", "UDP"]))


@given(st.lists(_policies, max_size=4), _policies, _wanted)
def test_a_policy_more_denies_only_what_it_isolates(
    policies: list[Object], more: Object, wanted: tuple[Pod, Pod, int, str]
) -> None:
    before, after = judge(policies, NAMESPACES, *wanted), judge([*policies, more], NAMESPACES, *wanted)
    source, destination = wanted[:2]
    touched = [
        pod
        for pod in (source, destination)
        if more["metadata"]["namespace"] == pod.namespace and selects(more["spec"]["podSelector"], pod.labels)
    ]
    if not touched:
        assert bool(before) is bool(after)


@given(st.lists(_policies, min_size=1, max_size=4), _wanted)
def test_a_rule_more_never_denies(policies: list[Object], wanted: tuple[Pod, Pod, int, str]) -> None:
    before = judge(policies, NAMESPACES, *wanted)
    first = policies[0]
    wider = {
        **first,
        "spec": {**first["spec"], "ingress": [*first["spec"]["ingress"], {"ports": [{"port": 1}]}]},
    }
    assert not before or judge([wider, *policies[1:]], NAMESPACES, *wanted)


@given(st.lists(_policies, max_size=4), _wanted)
def test_an_empty_policy_never_allows_and_order_is_nothing(
    policies: list[Object], wanted: tuple[Pod, Pod, int, str]
) -> None:
    verdict = bool(judge(policies, NAMESPACES, *wanted))
    assert bool(judge(policies[::-1], NAMESPACES, *wanted)) is verdict
    denying = policy("deny", of={}, types=["Ingress", "Egress"])
    closed = judge([*policies, denying], NAMESPACES, *wanted)
    assert verdict or not closed
