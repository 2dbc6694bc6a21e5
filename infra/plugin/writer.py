"""One object written to its cluster: applied, waited for, or only tried out.

What may have reached the cluster is never forgotten: where the API server goes away in mid-create, the error carries
a state from which the next run applies the same object again.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

from infra.plugin import await_
from infra.plugin.annotations import PATCH_FIELD_MANAGER, TIMEOUT_SECONDS, annotation
from infra.plugin.apply import RETRY_S, Cancelled, Outage, apply, delete, relinquish, retried
from infra.plugin.await_.waiting import WaitFailed, wait_gone, wait_ready
from infra.plugin.cluster import Cluster, NoCluster
from infra.plugin.host import Host
from infra.plugin.kinds import BUILT_IN, TypeToken
from infra.plugin.naming import field_manager, metadata_of, object_id, with_metadata
from infra.plugin.ownership import by_pulumi, leave_ignored
from infra.plugin.refusals import Refused, conflicts, name_of
from infra.plugin.state import State, checkpoint, desired
from infra.plugin.wire import Properties
from switchboard.kube import ApiError, Kind, Kube, Object, Unreachable

DEFAULT_TIMEOUT_S = 600.0
_KIND_APPEARS_S = 10.0

Answer = TypeVar("Answer")


class InitFailed(Exception):
    """The object is there (or may be), but not as wanted: its state, to be kept, and the reasons."""

    def __init__(
        self,
        id_: str,
        message: str,
        properties: Properties,
        inputs: Properties,
        reasons: list[str] | None = None,
    ) -> None:
        super().__init__(message)
        self.id = id_
        self.properties = properties
        self.inputs = inputs
        self.reasons = [message, *(reasons or [])]


@dataclass(frozen=True)
class Target:
    """One object to write: its type on the server, the object itself, and whose fields they are."""

    urn: str
    kube: Kube
    kind: Kind
    obj: Object
    manager: str
    inputs: Properties
    api_version: str | None
    timeout_s: float

    @property
    def id(self) -> str:
        return object_id(self.obj["metadata"].get("namespace"), self.obj["metadata"]["name"])

    def state(self, live: Object) -> Properties:
        return checkpoint(self.inputs, live, self.manager, self.api_version)

    def failed(self, live: Object, message: str, reasons: list[str] | None = None) -> InitFailed:
        return InitFailed(self.id, message, self.state(live), self.inputs, reasons)

    async def now(self) -> Object | None:
        """The object that has this one's name now."""
        meta = self.obj["metadata"]
        return await self.kube.get_or_none(self.kind, meta["name"], meta.get("namespace"))


@dataclass(frozen=True)
class Ignoring:
    """What of an object the user ignores, and the managers under which its fields were applied so far."""

    paths: Sequence[str]
    managers: Set[str]


class Writer:
    """Writes to one cluster, until `cancelled` is set."""

    def __init__(self, cluster: Cluster, host: Host, retry_s: float = RETRY_S) -> None:
        self.cluster = cluster
        self.cancelled = asyncio.Event()
        self._host = host
        self._retry_s = retry_s
        self.outage = Outage()
        self._answered = False

    async def ask(self, once: Callable[[], Awaitable[Answer]]) -> Answer:
        """A question; once the server has answered any, its absence is waited out for a while."""
        answer: Answer = await retried(
            once, self.cancelled, self._retry_s if self._answered else 0.0, self.outage
        )
        self._answered = True
        return answer

    async def reachable(self) -> bool:
        try:
            await (await self.cluster.kube()).request("GET", "/version", timeout_s=5)
        except (ApiError, Unreachable, NoCluster):
            return False
        return True

    async def find_kind(self, token: TypeToken, *, fresh: bool = False) -> Kind | None:
        """The kind, or None where the server doesn't serve it; built-in ones ask nobody."""
        if found := BUILT_IN.get((token.api_version, token.kind)):
            return found
        return await self.ask(lambda: self.cluster.find_kind(token, fresh=fresh))

    async def kind(self, token: TypeToken) -> Kind:
        """The kind on the server, waited for a while, as its definition may have come just now.

        Raises:
            ValueError: the server doesn't serve it.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _KIND_APPEARS_S
        while True:
            kind = await self.find_kind(token, fresh=True)
            if kind is not None:
                return kind
            if loop.time() > until_s or self.cancelled.is_set() or not _may_come(token):
                raise ValueError(
                    f"the cluster has no kind {token.kind} in {token.api_version}: "
                    "is its CustomResourceDefinition installed, and does this resource depend on it?"
                )
            await asyncio.sleep(0.3)

    async def target(
        self,
        urn: str,
        token: TypeToken,
        inputs: Properties,
        old: State | None,
        timeout_s: float,
        *,
        preview: bool,
    ) -> Target | None:
        """What to write; None in a preview of a kind that isn't there yet."""
        kube = await self.cluster.kube()
        kind = await self.find_kind(token) if preview else await self.kind(token)
        if kind is None:
            return None
        if not kind.namespaced:
            inputs = with_metadata(inputs)
            (metadata_of(inputs) or {}).pop("namespace", None)
        obj = desired(inputs)
        kept = old.field_manager if old else None
        return Target(
            urn=urn,
            kube=kube,
            kind=kind,
            obj=obj,
            manager=annotation(obj, PATCH_FIELD_MANAGER) or kept or field_manager(),
            inputs=inputs,
            api_version=(old.initial_api_version if old else None) or obj.get("apiVersion"),
            timeout_s=timeout(timeout_s, obj),
        )

    async def make_room(self, target: Target, *, patch: bool) -> None:
        """See that nobody else's object has the new one's name (or, for a patch, that there is one).

        Raises:
            ValueError: there is (isn't).
        """
        there = await self.ask(target.now)
        if there is not None and there["metadata"].get("deletionTimestamp"):
            await self.wait_gone(target.urn, target.kube, target.kind, there, target.timeout_s)
            there = None
        if patch and there is None:
            raise ValueError(f"{name_of(target.obj)} doesn't exist, so there is nothing to patch")
        if there is not None and not patch and not self.cluster.config.upsert:
            raise _exists(target)

    async def check_room(self, target: Target) -> None:
        """See in a preview what `make_room` will see at the update, as far as that is certain.

        It isn't of an object that some Pulumi has applied: it may be one that this run deletes before, of which the
        engine tells a plugin nothing.

        Raises:
            ValueError: somebody else's object has the new one's name.
        """
        if self.cluster.config.upsert:
            return
        try:
            there = await self.ask(target.now)
        except ApiError:
            return  # whoever may not look may be allowed to by this very run
        if there is not None and not there["metadata"].get("deletionTimestamp") and not by_pulumi(there):
            raise _exists(target)

    async def apply(self, target: Target, *, dry_run: bool = False) -> Object:
        return await apply(
            target.kube,
            target.kind,
            target.obj,
            field_manager=target.manager,
            force=self.cluster.config.patch_force,
            dry_run=dry_run,
            cancelled=self.cancelled,
            retry_s=self._retry_s,
            outage=self.outage,
        )

    async def apply_new(self, target: Target) -> Object:
        """Raises: InitFailed: it may or may not have been created."""
        try:
            return await self.apply(target)
        except (Unreachable, Cancelled) as error:
            raise target.failed(
                target.obj, f"{name_of(target.obj)}: the API server went away while it was created: {error}"
            ) from None

    async def update(
        self, target: Target, ignoring: Ignoring, write: Callable[[Target], Awaitable[Answer]]
    ) -> Answer:
        """`write` the target as it is to be applied while what the user ignores is left to others."""
        given = await self._leaving(target, ignoring)
        while True:
            try:
                return await write(given)
            except Refused as refused:
                if not (ignoring.paths and conflicts(refused.error)):
                    raise
                # Another manager may have come to an ignored field after the look: then a new look leaves that out.
                before, given = given, await self._leaving(target, ignoring)
                if given.obj == before.obj:
                    raise

    async def _leaving(self, target: Target, ignoring: Ignoring) -> Target:
        live = await self.ask(target.now) if ignoring.paths else None
        if live is None:
            return target
        obj = copy.deepcopy(target.obj)
        leave_ignored(obj, live, ignoring.paths, ignoring.managers)
        return replace(target, obj=obj)

    async def try_create(self, target: Target) -> Object | None:
        """The object as it would be made; None where that can't be told before it's done."""
        return await self._dry_run(target, new=True)

    async def try_update(self, target: Target) -> Object | None:
        """The object as it would be changed; None where that can't be told before it's done."""
        return await self._dry_run(target, new=False)

    async def _dry_run(self, target: Target, *, new: bool) -> Object | None:
        try:
            return await self.ask(lambda: self.apply(target, dry_run=True))
        except Refused as refused:
            error = refused.error
            if error.status in (403, 404) or "does not support dry run" in error.message:
                return None
            if error.status == 409 and not conflicts(error):
                return None
            if new and await target.now() is not None:
                return None  # It's replaced: what is refused is a change of the old object.
            raise

    async def wait(self, target: Target, live: Object) -> Object:
        """Raises: InitFailed: it isn't as wanted."""
        rule = await_.rule_for(target.obj)
        if rule is None:
            return live
        try:
            return await wait_ready(
                target.kube,
                target.kind,
                live,
                rule,
                timeout_s=target.timeout_s,
                cancelled=self.cancelled,
                report=lambda text: self._host.status(text, target.urn),
                just_back=self.outage.is_recent(asyncio.get_running_loop().time()),
            )
        except WaitFailed as failure:
            raise target.failed(failure.live, str(failure), failure.reasons) from None
        finally:
            self._host.done(target.urn)

    async def wait_gone(self, urn: str, kube: Kube, kind: Kind, live: Object, timeout_s: float) -> None:
        try:
            await wait_gone(
                kube,
                kind,
                live,
                timeout_s=timeout_s,
                cancelled=self.cancelled,
                report=lambda text: self._host.status(text, urn),
            )
        finally:
            self._host.done(urn)

    async def delete(self, kube: Kube, kind: Kind, live: Object, inputs: Object) -> Object | None:
        return await delete(kube, kind, live, inputs, self.cancelled, self.outage)

    async def relinquish(self, kube: Kube, kind: Kind, obj: Object, field_manager: str) -> None:
        await relinquish(kube, kind, obj, field_manager, self.cancelled, self.outage)

    async def let_go(self, kube: Kube, kind: Kind, live: Object, field_manager: str) -> None:
        """Take a patch back: its fields that nobody else applies go."""
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": live["metadata"]}
        try:
            await self.relinquish(kube, kind, obj, field_manager)
        except Refused as refused:
            raise Refused(
                f"{refused}. The patch holds a field that the object can't be without: "
                "set `retain_on_delete`, or let another manager apply that field first",
                refused.error,
            ) from None


def _exists(target: Target) -> ValueError:
    return ValueError(
        f"{name_of(target.obj)} already exists. Import it (`import_`), delete it, or set "
        "`upsert_existing_objects` on the provider to take it over"
    )


def _may_come(token: TypeToken) -> bool:
    """Whether a definition can bring the kind: their groups have a dot, unlike most of the server's own."""
    return "." in token.api_version.rpartition("/")[0]


def timeout(timeout_s: float, obj: Object) -> float:
    """`customTimeouts`, else the annotation, else the default."""
    if timeout_s > 0:
        return timeout_s
    try:
        return float(annotation(obj, TIMEOUT_SECONDS) or DEFAULT_TIMEOUT_S)
    except ValueError:
        return DEFAULT_TIMEOUT_S
