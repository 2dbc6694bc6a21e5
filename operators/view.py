"""What there is in the operator's namespace: facts of pods, Deployments, claims, budgets and gateways, kept by watches.

ModelServers come from kopf (`operators.app`); they are few. Pods may be 20,000, and of those only facts are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from operators import facts
from operators.signals.values import CORE, EDGE, Place
from switchboard import labels, workload
from switchboard.informer import Informer, Key
from switchboard.kinds import POD_DISRUPTION_BUDGETS
from switchboard.kube import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS, PODS, Kube, Object
from switchboard.pods import address_of, labels_of, serves

_COMPONENT = "app.kubernetes.io/component"
_SERVERS = f"{_COMPONENT}={workload.COMPONENT}"
GATEWAY_AGE_S = 10.0
"""A gateway is missed in the signals once it has been ready for so long: by then it has been scraped."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that serves: its name, its address, where it is, and since when (seconds since the epoch)."""

    name: str
    ip: str
    place: Place
    ready_at: float


class View:
    """The facts, by ModelServer; `run()` gives what keeps them, each to be run as a task of its own."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.pods: dict[str, dict[str, facts.Pod]] = defaultdict(dict)
        self.deployments: dict[str, facts.Deployment] = {}
        self.claims: dict[str, facts.Made] = {}
        self.budgets: dict[str, facts.Made] = {}
        self.gateways: dict[str, Gateway] = {}
        self._changed: set[str] = set()

        def informer(kind: Any, selector: str, on_change: Any) -> Informer:
            return Informer(
                kube,
                kind,
                namespace=namespace,
                label_selector=selector,
                on_change=on_change,
                compact=facts.stub,
            )

        self.informers = (
            informer(PODS, _SERVERS, self._pod),
            informer(DEPLOYMENTS, _SERVERS, self._deployment),
            informer(PERSISTENT_VOLUME_CLAIMS, _SERVERS, self._made(self.claims)),
            informer(POD_DISRUPTION_BUDGETS, _SERVERS, self._made(self.budgets)),
            informer(PODS, f"{_COMPONENT}=gateway", self._gateway),
        )

    def run(self) -> list[Coroutine[Any, Any, None]]:
        return [one.run() for one in self.informers]

    @property
    def synced(self) -> bool:
        return all(one.synced.is_set() for one in self.informers)

    def changed(self) -> set[str]:
        """The ModelServers of which something has changed since this was asked last."""
        found, self._changed = self._changed, set()
        return found

    def gateways_at(self, now: float) -> dict[Place, int]:
        """How many gateways there are at each place that should be in the signals by `now`."""
        found: dict[Place, int] = defaultdict(int)
        for one in self.gateways.values():
            if not 0 <= now - one.ready_at < GATEWAY_AGE_S:  # by a clock that was set back it may be to come
                found[one.place] += 1
        return found

    def told(self, name: str, answer: Object) -> facts.Deployment:
        """The facts of a Deployment from the API server's answer to a change, unless newer ones are known."""
        new = facts.deployment(answer)
        old = self.deployments.get(name)
        if old is None or old.uid != new.uid or old.version <= new.version:
            self.deployments[name] = new
            self._changed.add(name)
        return self.deployments[name]

    def _pod(self, key: Key, old: Object | None, new: Object | None) -> None:
        owner = facts.owner_of(new or old or {"metadata": {}})
        if owner is None:
            return
        self._changed.add(owner)
        found = facts.pod(new) if new is not None and facts.replica(new) else None
        if found is None:
            self.pods[owner].pop(key[1], None)
            if not self.pods[owner]:
                del self.pods[owner]
        else:
            self.pods[owner][key[1]] = found

    def _deployment(self, key: Key, _: Object | None, new: Object | None) -> None:
        if new is None:
            self.deployments.pop(key[1], None)
            self._changed.add(key[1])
        else:
            self.told(key[1], new)

    def _made(self, into: dict[str, facts.Made]) -> Callable[[Key, Object | None, Object | None], None]:
        def changed(key: Key, old: Object | None, new: Object | None) -> None:
            owner = facts.owner_of(new or old or {"metadata": {}}) or key[1]
            if new is None:
                into.pop(owner, None)
            else:
                into[owner] = facts.made(new)

        return changed

    def _gateway(self, key: Key, _: Object | None, new: Object | None) -> None:
        address = address_of(new) if new is not None and serves(new) else None
        if new is None or address is None:
            self.gateways.pop(key[1], None)
            return
        own = labels_of(new)
        tier = own.get(labels.TIER, CORE)
        ready = next(one for one in new["status"]["conditions"] if one["type"] == "Ready")
        self.gateways[key[1]] = Gateway(
            key[1],
            address,
            Place(tier, own.get(labels.REGION) if tier == EDGE else None),
            facts.seconds(ready.get("lastTransitionTime")) or 0.0,
        )
