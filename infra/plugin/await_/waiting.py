"""Watching an object, and what belongs to it, until a rule is met, can't be met, or the time is over.

A broken connection is waited out: the API server may be restarting. A failure names the object, what was missing,
and for each pod in trouble its container, its reason and the last line of its log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from infra.plugin.await_.pods import Trouble, troubles
from infra.plugin.await_.rule import Related, Rule, Seen, Verdict
from switchboard.informer import Informer
from switchboard.kube import EVENTS, PODS, ApiError, Kind, Kube, Object, Unreachable

Report = Callable[[str], Awaitable[None]]
_SHOWN_PODS = 3


class WaitFailed(Exception):
    """Not as wanted: the object as last seen, and why."""

    def __init__(self, live: Object, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = list(reasons)


class _Watched:
    """An object and what belongs to it, kept up to date."""

    def __init__(self, kube: Kube, kind: Kind, live: Object, related: Sequence[Related]) -> None:
        self._changed = asyncio.Event()
        meta = live["metadata"]
        self.key = (meta.get("namespace", ""), meta["name"])
        self.live = live
        self.object = Informer(
            kube,
            kind,
            namespace=meta.get("namespace"),
            field_selector=f"metadata.name={meta['name']}",
            on_change=self._on_change,
        )
        self.related = [
            Informer(
                kube,
                item.kind,
                namespace=meta.get("namespace") if item.kind.namespaced else None,
                label_selector=item.select(live),
                on_change=self._on_change,
            )
            for item in related
            if item.applies(live)
        ]
        self.all = [self.object, *self.related]

    def _on_change(self, *_: object) -> None:
        self._changed.set()

    @property
    def seen(self) -> Seen:
        return {informer.kind.plural: list(informer.items.values()) for informer in self.related}

    def current(self) -> Object | None:
        """The object now; None where it doesn't exist. Lists leave out what all their items share."""
        found = self.object.items.get(self.key)
        if found is None:
            return None
        self.live = {"apiVersion": self.live["apiVersion"], "kind": self.live["kind"], **found}
        return self.live

    async def synced(self) -> None:
        await asyncio.gather(*(informer.synced.wait() for informer in self.all))

    async def changed(self) -> None:
        await self._changed.wait()
        self._changed.clear()


@asynccontextmanager
async def _watch(kube: Kube, kind: Kind, live: Object, related: Sequence[Related]) -> AsyncIterator[_Watched]:
    watched = _Watched(kube, kind, live, related)
    tasks = [asyncio.ensure_future(informer.run()) for informer in watched.all]
    try:
        yield watched
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until(
    watched: _Watched, step: Callable[[], Awaitable[bool]], timeout_s: float, cancelled: asyncio.Event
) -> str | None:
    """Run `step` at each change until it says True: None then, or what ended the wait before."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    stop: asyncio.Future[object] = asyncio.ensure_future(cancelled.wait())
    wake: asyncio.Future[object] = asyncio.ensure_future(watched.synced())
    try:
        while True:
            await asyncio.wait(
                {wake, stop}, timeout=max(0.0, deadline_s - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if wake.done() and not cancelled.is_set():
                wake = asyncio.ensure_future(watched.changed())
                if await step():
                    return None
            if cancelled.is_set():
                return "cancelled"
            if loop.time() >= deadline_s:
                return f"not ready after {_duration(timeout_s)}"
    finally:
        stop.cancel()
        wake.cancel()


async def wait_ready(
    kube: Kube,
    kind: Kind,
    live: Object,
    rule: Rule,
    *,
    timeout_s: float,
    cancelled: asyncio.Event,
    report: Report,
    just_back: bool = False,
) -> Object:
    """The object when it meets `rule`; `just_back`: the server was away a moment ago, and may refuse what it allows.

    Raises:
        WaitFailed: it didn't within `timeout_s`, never will, is gone, may not be watched, or the wait was cancelled.
    """
    if rule.check(live, {}).done:
        return live  # what belongs to it can only speak against an object that isn't done by itself
    what = f"{kind.kind} {_full_name(live)}: "
    related, blind = list(rule.related), ""
    if not just_back:
        if refusal := await _refusal(kube, kind, live, f"metadata.name={live['metadata']['name']}"):
            raise WaitFailed(live, f"{what}applied, but can't be waited for: {refusal}")
        related, blind = await _visible(kube, live, rule.related)
    verdict = Verdict(False, "no answer from the API server yet")

    async def step() -> bool:
        nonlocal verdict
        now = watched.current()
        if now is None:
            verdict = Verdict(False, "it was deleted by somebody else", failed=True)
            return True
        verdict = rule.check(now, watched.seen)
        if not verdict.done:
            await report(status_line(verdict, watched.seen))
        return verdict.done or verdict.failed

    async with _watch(kube, kind, live, related) as watched:
        ended = await _until(watched, step, timeout_s, cancelled)
        if verdict.done:
            return watched.live
        message = what + (f"{ended}: {verdict.message}" if ended else verdict.message) + blind
        reasons = [] if ended == "cancelled" else await explain(kube, watched.live, watched.seen)
        raise WaitFailed(watched.live, message, reasons)


async def _visible(kube: Kube, live: Object, related: Sequence[Related]) -> tuple[list[Related], str]:
    """Those of `related` that the user may see, and words for the rest: what is missing then is no reason to fail."""
    shown, hidden = [], ""
    for item in related:
        if item.applies(live) and (refusal := await _refusal(kube, item.kind, live)):
            hidden += f" (its {item.kind.plural} can't be seen: {refusal})"
        else:
            shown.append(item)
    return shown, hidden


async def _refusal(kube: Kube, kind: Kind, live: Object, field_selector: str | None = None) -> str | None:
    """Why objects of this kind beside `live` may not be listed; None where they may, or nobody answers."""
    namespace = live["metadata"].get("namespace") if kind.namespaced else None
    params = {"limit": "1"} | ({"fieldSelector": field_selector} if field_selector else {})
    try:
        await kube.request("GET", kind.path(namespace), params=params)
    except ApiError as error:
        return error.message if error.status in (401, 403) else None
    except Unreachable:
        pass
    return None


async def check_now(kube: Kube, live: Object, rule: Rule) -> tuple[Verdict, list[str]]:
    """Whether `live` meets `rule` right now, and if not, why."""
    verdict = rule.check(live, {})
    if verdict.done:
        return verdict, []
    namespace = live["metadata"].get("namespace")
    related, blind = await _visible(kube, live, rule.related)
    seen: dict[str, list[Object]] = {}
    for item in related:
        if item.applies(live):
            seen[item.kind.plural] = await kube.list(
                item.kind, namespace if item.kind.namespaced else None, label_selector=item.select(live)
            )
    verdict = rule.check(live, seen)
    if verdict.done:
        return verdict, []
    return replace(verdict, message=verdict.message + blind), await explain(kube, live, seen)


async def wait_gone(
    kube: Kube, kind: Kind, live: Object, *, timeout_s: float, cancelled: asyncio.Event, report: Report
) -> None:
    """Until the object (by its uid) doesn't exist any more.

    Raises:
        WaitFailed: it still does after `timeout_s`, or the wait was cancelled.
    """
    uid = live["metadata"].get("uid")
    why = "no answer from the API server yet"

    async def step() -> bool:
        nonlocal why
        now = watched.current()
        if now is None or (uid and now["metadata"].get("uid") != uid):
            return True
        why = _held_by(now)
        await report(f"being deleted: {why}")
        return False

    async with _watch(kube, kind, live, ()) as watched:
        ended = await _until(watched, step, timeout_s, cancelled)
        if ended is not None:
            ended = ended.replace("not ready", "not gone")
            raise WaitFailed(watched.live, f"{kind.kind} {_full_name(live)}: {ended}: {why}")


def _held_by(live: Object) -> str:
    meta = live["metadata"]
    contents = [
        item["message"]
        for item in live.get("status", {}).get("conditions") or []
        if item.get("status") == "True"
        and item.get("type", "").startswith("Namespace")
        and item.get("message")
    ]
    finalizers = [*(meta.get("finalizers") or []), *(live.get("spec", {}).get("finalizers") or [])]
    parts = contents + ([f"held by finalizers {', '.join(finalizers)}"] if finalizers else [])
    return "; ".join(parts) or "waiting for it to end"


def status_line(verdict: Verdict, seen: Seen) -> str:
    """What a wait shows while it lasts."""
    found = troubles(seen.get(PODS.plural, ()))
    return f"{verdict.message}; {found[0]}" if found else verdict.message


async def explain(kube: Kube, live: Object, seen: Seen) -> list[str]:
    """Why an object isn't as wanted: its pods' troubles, else its own last warning."""
    pods = [live] if live.get("kind") == "Pod" else seen.get(PODS.plural, ())
    namespace = live["metadata"].get("namespace")
    reasons = [await _with_log(kube, item, namespace) for item in troubles(pods)[:_SHOWN_PODS]]
    if not reasons and namespace and (warning := await _last_warning(kube, live, namespace)):
        reasons.append(warning)
    return reasons


async def _with_log(kube: Kube, trouble: Trouble, namespace: str | None) -> str:
    if trouble.container is None or namespace is None:
        return str(trouble)
    params = {"container": trouble.container, "tailLines": "5", "previous": str(trouble.previous).lower()}
    try:
        text = await kube.request("GET", PODS.path(namespace, trouble.pod, "log"), params=params, timeout_s=3)
    except (ApiError, Unreachable):
        return str(trouble)
    lines = [line for line in str(text).splitlines() if line.strip()]
    return f"{trouble}, last log line: {lines[-1].strip()}" if lines else str(trouble)


async def _last_warning(kube: Kube, live: Object, namespace: str) -> str | None:
    selector = (
        f"involvedObject.name={live['metadata']['name']},involvedObject.kind={live['kind']},type=Warning"
    )
    try:
        events = await kube.list(EVENTS, namespace, field_selector=selector)
    except (ApiError, Unreachable):
        return None
    if not events:
        return None
    last = max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return f"{last.get('reason')}: {last.get('message')}"


def _full_name(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
