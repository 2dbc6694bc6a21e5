"""The leader among the operator's replicas: who holds a Lease and renews it in time.

By the rules of Kubernetes' own controllers (client-go): another one's lease is taken over when nobody has renewed it
for its whole duration *since this process last saw it change*, so that clocks needn't agree; and a holder that can't
renew stops to act well before another may begin. On a regular stop it is given up, and the next one takes it at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from switchboard.kube import LEASES, ApiError, Kube, Object, Unreachable

log = logging.getLogger(__name__)

NAME = "switchboard-operator"
DURATION_S = 15
RENEW_DEADLINE_S = 10.0
PERIOD_S = 2.0
ATTEMPT_S = 4.0
RELEASE_TRIES = 3


@dataclass(frozen=True)
class Seen:
    """Another one's lease: its state, and when (by this process' clock) it was first seen so."""

    mark: tuple[str, str]
    at: float


def may_take(lease: Object | None, identity: str, seen: Seen | None, now: float) -> bool:
    """Whether `identity` may hold the lease: it is free, its own, or nobody has renewed it for its duration."""
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity")
    if not holder or holder == identity:
        return True
    if seen is None or seen.mark != mark(lease):
        return False
    return now - seen.at > spec.get("leaseDurationSeconds", DURATION_S)


def mark(lease: Object | None) -> tuple[str, str]:
    """What changes with each renewal."""
    spec = (lease or {}).get("spec") or {}
    return str(spec.get("holderIdentity") or ""), str(spec.get("renewTime"))


class Leader:
    """Takes and keeps the lease of a namespace. `leads` is true only while it can't have passed to another."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        period_s: float = PERIOD_S,
    ):
        self._kube, self._namespace, self.identity = kube, namespace, identity
        self._clock, self._period_s = clock, period_s
        self._renewed: float | None = None
        self._seen: Seen | None = None
        self._another = False
        self.term = 0
        """How often it was taken from another, or from nobody. In the same term nobody else has led in between."""

    @property
    def leads(self) -> bool:
        return self._renewed is not None and self._clock() - self._renewed < RENEW_DEADLINE_S

    @property
    def holder(self) -> str | None:
        """Who leads, as far as is known."""
        if self.leads:
            return self.identity
        return (self._seen.mark[0] or None) if self._seen is not None else None

    async def run(self) -> None:
        """Until cancelled; the lease is given up then."""
        try:
            while True:
                before = self.leads
                try:
                    async with asyncio.timeout(ATTEMPT_S):  # wait_for may miss a cancellation (Python 3.11)
                        await self._try()
                except (ApiError, Unreachable, TimeoutError) as error:
                    log.debug("lease: %s", error)
                if self.leads != before:
                    log.info("%s the leader", "this is" if self.leads else "this is no more")
                await asyncio.sleep(self._period_s)
        finally:
            await asyncio.shield(self._release())

    async def _try(self) -> None:
        asked = self._clock()
        lease = await self._kube.get_or_none(LEASES, NAME, self._namespace)
        if lease is not None and mark(lease) != (self._seen.mark if self._seen else None):
            self._seen = Seen(mark(lease), asked)
        if self._holder(lease) != self.identity:
            self._another = True  # the answer to what follows may be lost, and is seen at the next look only
        if not may_take(lease, self.identity, self._seen, asked):
            self._renewed = None
            return
        try:
            if lease is None:
                await self._kube.create(LEASES, self._lease(None))
            else:
                await self._kube.replace(
                    LEASES, self._lease(lease)
                )  # only if nobody was quicker: by its version
        except ApiError as error:
            if error.conflict:
                self._renewed = None if self._holder(lease) != self.identity else self._renewed
            raise
        if self._another:
            self.term, self._another = self.term + 1, False
        self._renewed = asked

    @staticmethod
    def _holder(lease: Object | None) -> str | None:
        return ((lease or {}).get("spec") or {}).get("holderIdentity")

    def _lease(self, before: Object | None, *, holder: str | None = None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = dict((before or {}).get("spec") or {})
        if spec.get("holderIdentity") != self.identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + (1 if before else 0)
        spec |= {
            "holderIdentity": self.identity if holder is None else holder,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": now,
        }
        meta = before["metadata"] if before else {"name": NAME, "namespace": self._namespace}
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": spec}

    async def _release(self) -> None:
        if self._renewed is None:
            return
        self._renewed = None
        problem: Exception | None = None
        for _ in range(RELEASE_TRIES):
            try:
                lease = await self._kube.get_or_none(LEASES, NAME, self._namespace)
                if lease is not None and self._holder(lease) == self.identity:
                    await self._kube.replace(LEASES, self._lease(lease, holder=""))
                return
            except ApiError as error:
                problem = error
                if not error.conflict:  # else a renewal that the stop cut off has come to be made after all
                    break
            except Unreachable as error:
                problem = error
                break
        log.info("the lease isn't given up, it ends by itself in %d s: %s", DURATION_S, problem)
