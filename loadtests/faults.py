"""The faults that a service must bear under load, by name.

Each has a hypothesis, what is done, how it is mended, and how soon the service must be within its level again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LEAD_S: Final = 30.0
"""Before the first fault: what is usual."""


class Name(StrEnum):
    """Of a fault, as a scenario writes it."""

    KILL_POD = "kill-pod"
    KILL_NODE_PODS = "kill-node-pods"
    FREEZE_POD = "freeze-pod"
    SLOW_POD = "slow-pod"
    FILL_MEMORY = "fill-memory"
    LOSE_NODE = "lose-node"
    LOSE_EDGE_NODE = "lose-edge-node"
    CUT_EDGE = "cut-edge"
    KILL_GATEWAY = "kill-gateway"
    BAD_GATEWAY_CONFIG = "bad-gateway-config"
    RESTART_OPERATOR = "restart-operator"
    RESTART_PROMETHEUS = "restart-prometheus"
    RESTART_API_SERVER = "restart-api-server"
    RESTART_MLFLOW = "restart-mlflow"
    ROLL_OUT = "roll-out"
    ROLL_OUT_BROKEN = "roll-out-broken"


@dataclass(frozen=True)
class Fault:
    """What is done, for `lasts_s`; `repair`: by whom it is mended; `turn_s`: when the next one may be; `within_s`: the
    service must be within its level again by then."""

    name: Name
    hypothesis: str
    done: str
    repair: str
    lasts_s: float = 0.0
    turn_s: float = 60.0
    within_s: float = 5.0


FAULTS: Final = {
    one.name: one
    for one in (
        Fault(
            Name.KILL_POD,
            "gateways put what was on its way once more, to another replica",
            "SIGKILL to all of a chat pod",
            "the node's agent starts it anew",
        ),
        Fault(
            Name.KILL_NODE_PODS,
            "each part has another one on another node",
            "SIGKILL to all pods of a node",
            "the node's agent starts them anew",
            turn_s=75,
        ),
        Fault(
            Name.FREEZE_POD,
            "what a replica doesn't answer soon is put to another, and health checks take it out",
            "SIGSTOP to all of a chat pod",
            "SIGCONT after 20 s",
            lasts_s=20,
        ),
        Fault(
            Name.SLOW_POD,
            "what a replica doesn't answer soon is put to another",
            "a chat pod has a fiftieth of a core",
            "its quota is given back after 20 s",
            lasts_s=20,
        ),
        Fault(
            Name.FILL_MEMORY,
            "the kernel ends it, and the others answer",
            "a chat pod's memory is at its limit",
            "the node's agent starts it anew",
            lasts_s=20,
        ),
        Fault(
            Name.LOSE_NODE,
            "each part has another one on another node, and nobody waits for those that are gone",
            "SIGSTOP to a node: its agent and all its pods",
            "SIGCONT after a minute",
            lasts_s=60,
            turn_s=120,
            within_s=10,
        ),
        Fault(
            Name.LOSE_EDGE_NODE,
            "its customers ask the core",
            "SIGSTOP to an edge node: its agent and all its pods",
            "SIGCONT after 30 s",
            lasts_s=30,
            turn_s=90,
            within_s=10,
        ),
        Fault(
            Name.CUT_EDGE,
            "the edge answers by itself",
            "nothing that an edge node sends arrives in its cluster",
            "it arrives again after 30 s",
            lasts_s=30,
            turn_s=75,
        ),
        Fault(
            Name.KILL_GATEWAY,
            "the other gateway behind the same address answers",
            "SIGKILL to all of a gateway pod",
            "the node's agent starts it anew",
        ),
        Fault(
            Name.BAD_GATEWAY_CONFIG,
            "Envoy goes on by what it has, and the agent writes the file anew",
            "a gateway's file of clusters is nonsense",
            "the gateway's agent, by itself",
        ),
        Fault(
            Name.RESTART_OPERATOR,
            "nothing waits for the operator",
            "SIGKILL to the operator's pod",
            "the node's agent starts it anew",
        ),
        Fault(
            Name.RESTART_PROMETHEUS,
            "the operator asks the gateways, and takes nothing away",
            "SIGKILL to the site's Prometheus",
            "the node's agent starts it anew",
        ),
        Fault(
            Name.RESTART_API_SERVER,
            "gateways go on by what they know",
            "SIGKILL to the API server of the serving site",
            "the site's supervisor starts it anew",
        ),
        Fault(
            Name.RESTART_MLFLOW,
            "nothing that serves asks the registry",
            "SIGKILL to MLflow's pod",
            "the node's agent starts it anew",
        ),
        Fault(
            Name.ROLL_OUT,
            "old replicas are drained when new ones serve",
            "a new revision of the ModelServer",
            "none is needed; the old revision is rolled out after a minute",
            lasts_s=60,
            turn_s=150,
        ),
        Fault(
            Name.ROLL_OUT_BROKEN,
            "its replicas never get ready, and the old ones stay",
            "a model version that isn't there",
            "the old one again after 45 s",
            lasts_s=45,
            turn_s=100,
        ),
    )
}


def length_s(names: Sequence[Name]) -> float:
    """How long a run with these takes, at the least."""
    return LEAD_S + sum(FAULTS[name].turn_s for name in names)
