"""Events about objects: sent one after the other beside the work, the same one again as a count.

Best effort, like every controller's: while the API server is away the last `kept` are kept, older ones are dropped,
and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from switchboard.kube import EVENTS, ApiError, Kube, Object, Unreachable

log = logging.getLogger(__name__)

KEPT = 200
_KNOWN = 512
_COUNT_PERIOD_S = 10.0
_RETRY_S = 2.0

Key = tuple[str, str, str, str]


@dataclass
class _Sent:
    name: str
    namespace: str
    count: int
    patched_at: float
    told: int = 1
    """How often it was sent: some of them may have been waiting when the first was."""


class Events:
    """`emit` never blocks and never fails; `run` sends. They come from `component`, of which this is `instance`."""

    def __init__(self, kube: Kube, component: str, instance: str, *, kept: int = KEPT) -> None:
        self._kube = kube
        self._component = component
        self._instance = instance
        self._queue: deque[tuple[Key, Object]] = deque(maxlen=kept)
        self._sent: OrderedDict[Key, _Sent] = OrderedDict()
        self._kept, self._dropping = kept, False
        self._wake = asyncio.Event()

    def emit(
        self,
        about: Object,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        container: str | None = None,
        init: bool = False,
    ) -> None:
        """An event about an object (by default a pod), or about a container of it."""
        meta = about["metadata"]
        reference: Object = {
            "apiVersion": about.get("apiVersion") or "v1",
            "kind": about.get("kind") or "Pod",
            "name": meta["name"],
            "uid": meta["uid"],
        }
        if "namespace" in meta:
            reference["namespace"] = meta["namespace"]
        if container is not None:
            reference["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        message = message[:1000]
        key = (meta["uid"], reference.get("fieldPath", ""), reason, message)
        known = self._sent.get(key)
        if known is not None:
            known.count += 1
            if known.count > 3 and time.monotonic() - known.patched_at < _COUNT_PERIOD_S:
                return  # counted; the next one after the period tells
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{meta['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": meta.get("namespace", "default"),
            },
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        if len(self._queue) >= self._kept and not self._dropping:
            self._dropping = True
            log.warning("more than %d events wait to be sent: the oldest are dropped", self._kept)
        self._queue.append((key, body))
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._dropping = self._dropping and len(self._queue) >= self._kept
                key, body = self._queue.popleft()
                try:
                    await self._send(key, body)
                except Unreachable:
                    if len(self._queue) < self._kept:
                        self._queue.appendleft((key, body))
                    await asyncio.sleep(_RETRY_S)
                except ApiError as error:
                    # A namespace that is being removed takes no new events; nobody would read them.
                    log.debug("event %s refused: %s", body["reason"], error)

    async def _send(self, key: Key, body: Object) -> None:
        known = self._sent.get(key)
        if known is not None:
            known.patched_at = time.monotonic()
            known.told += 1
            known.count = max(known.count, known.told)
            try:
                await self._kube.patch(
                    EVENTS,
                    known.name,
                    {"count": known.count, "lastTimestamp": body["lastTimestamp"]},
                    known.namespace,
                )
                return
            except ApiError as error:
                if not error.not_found:
                    raise
        meta = body["metadata"]
        self._sent[key] = _Sent(meta["name"], meta["namespace"], 1, time.monotonic())
        self._sent.move_to_end(key)
        while len(self._sent) > _KNOWN:
            self._sent.popitem(last=False)
        try:
            await self._kube.create(EVENTS, body)
        except (ApiError, Unreachable):
            self._sent.pop(key, None)
            raise
