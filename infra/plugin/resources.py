"""What happens to a resource: checked, compared, created, read, updated, deleted, on plain values.

Promises: a preview changes nothing; a comparison asks no API server; and what may have reached the cluster is in the
state, also where a wait failed or the user broke off (then the next `pulumi up` goes on from there).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from infra.plugin import await_
from infra.plugin.annotations import REPLACE_UNREADY, SKIP_AWAIT, is_true
from infra.plugin.apply import RETRY_S, Cancelled
from infra.plugin.await_.waiting import check_now
from infra.plugin.check import Failure, Naming, checked, failures
from infra.plugin.cluster import Cluster, NoCluster
from infra.plugin.config import Config
from infra.plugin.diff import Difference, compare
from infra.plugin.host import Host
from infra.plugin.kinds import BUILT_IN, CRD, TypeToken, parse_token
from infra.plugin.naming import field_manager, is_autonamed, metadata_of, parse_id
from infra.plugin.refusals import Refused, explain, name_of
from infra.plugin.state import State, checkpoint, desired, imported_inputs, parse, refreshed_inputs
from infra.plugin.wire import Properties, has_unknown, reveal
from infra.plugin.writer import Ignoring, InitFailed, Writer, timeout
from switchboard.kube import ApiError, Object, Unreachable

_REPLACE_UNREADY_PATH = f'metadata.annotations["{REPLACE_UNREADY}"]'


@dataclass(frozen=True)
class Found:
    """What a read found; an empty `id`: the object doesn't exist."""

    id: str = ""
    properties: Properties = field(default_factory=dict)
    inputs: Properties = field(default_factory=dict)


class Resources:
    """The operations of one configured provider."""

    def __init__(self, config: Config, host: Host, *, retry_s: float = RETRY_S) -> None:
        self.config = config
        self.cluster = Cluster(config)
        self._writer = Writer(self.cluster, host, retry_s)
        self._host = host
        self._namespace: str | None = None
        self._in_state: set[tuple[str, ...]] = set()
        """The objects that the engine has shown to be in its state: whatever is made under such a name replaces it."""

    def cancel(self) -> None:
        """Break off what is waited for, and begin nothing new."""
        self._writer.cancelled.set()

    async def close(self) -> None:
        self.cancel()
        await self.cluster.close()

    async def check(
        self, type_: str, news: Properties, olds: Properties | None, naming: Naming
    ) -> tuple[Properties, list[Failure]]:
        """The inputs to keep, and what is wrong with them."""
        token = parse_token(type_, _kind_of(news))
        if self.config.skip_update_unreachable and olds and not await self._writer.reachable():
            return olds, []
        if olds:
            self._in_state.add(_which(olds))
        inputs = checked(news, olds, token, naming, await self._default_namespace(token))
        return inputs, failures(inputs, token, naming)

    async def diff(
        self, type_: str, state: Properties, old_inputs: Properties, news: Properties, ignore: list[str]
    ) -> Difference:
        """What the change of inputs means."""
        token = parse_token(type_, _kind_of(news))
        old = parse(state, old_inputs)
        self._in_state.add(_which(old.inputs))
        difference = compare(old.inputs, news, ignore=ignore, patch=token.patch, options=self.config.options)
        if token.kind == "Job" and not difference.replaces and is_true(reveal(news), REPLACE_UNREADY):
            return await self._replace_unready(old, difference)
        return difference

    async def create(
        self, urn: str, type_: str, inputs: Properties, timeout_s: float, preview: bool
    ) -> tuple[str, Properties]:
        """The new object's id and state (in a preview: no id)."""
        self._check_cancelled()
        token = parse_token(type_, _kind_of(inputs))
        if preview and (has_unknown(inputs) or token.patch):
            return "", inputs
        target = await self._writer.target(urn, token, inputs, None, timeout_s, preview=preview)
        if target is None:
            return "", inputs
        if preview:
            if not is_autonamed(inputs) and _which(target.obj) not in self._in_state:
                await self._writer.check_room(target)
            live = await self._writer.try_create(target)
            return "", inputs if live is None else _without_status(target.state(live))
        await self._writer.make_room(target, patch=token.patch)
        live = await self._writer.apply_new(target)
        if target.kind == CRD:
            self.cluster.kinds_changed()
        return target.id, target.state(await self._writer.wait(target, live))

    async def read(self, type_: str, id_: str, state: Properties, inputs: Properties) -> Found:
        """The object as it is now, and its inputs in line with it; without old inputs: for an import."""
        old = parse(state, inputs)
        token = parse_token(type_, _kind_of(old.inputs))
        if self.config.skip_update_unreachable and not await self._writer.reachable():
            return Found(id_, state, inputs)
        try:
            live = await self._live(token, id_)
        except (Unreachable, NoCluster):
            if not self.config.delete_unreachable:
                raise
            return Found()
        if live is None:
            return Found()
        self._in_state.add(_which(live))
        known = bool(old.inputs)
        refreshed = refreshed_inputs(old.inputs, old.live, live) if known else imported_inputs(live)
        found = checkpoint(refreshed, live, old.field_manager or field_manager(), old.initial_api_version)
        rule = await_.rule_for(live) if known and not token.patch else None
        if rule is not None:
            verdict, reasons = await check_now(await self.cluster.kube(), live, rule)
            if not verdict.done:
                raise InitFailed(id_, f"{name_of(live)}: {verdict.message}", found, refreshed, reasons)
        return Found(id_, found, refreshed)

    async def update(
        self,
        urn: str,
        type_: str,
        state: Properties,
        news: Properties,
        ignore: list[str],
        timeout_s: float,
        preview: bool,
    ) -> Properties:
        """The object's new state."""
        self._check_cancelled()
        token = parse_token(type_, _kind_of(news))
        if preview and has_unknown(news):
            return news
        old = parse(state)
        target = await self._writer.target(urn, token, news, old, timeout_s, preview=preview)
        if target is None:
            return news
        ignoring = Ignoring(ignore, {target.manager, old.field_manager or target.manager})
        if preview:
            shown = await self._writer.update(target, ignoring, self._writer.try_update)
            return news if shown is None else target.state(shown)
        live = await self._writer.update(target, ignoring, self._writer.apply)
        if target.kind == CRD:
            self.cluster.kinds_changed()
        if old.field_manager and old.field_manager != target.manager:
            await self._writer.relinquish(target.kube, target.kind, target.obj, old.field_manager)
        return target.state(await self._writer.wait(target, live))

    async def delete(self, urn: str, type_: str, id_: str, state: Properties, timeout_s: float) -> None:
        """Until the object is gone; one that doesn't exist is."""
        self._check_cancelled()
        old = parse(state)
        token = parse_token(type_, _kind_of(old.inputs or old.live))
        try:
            live = await self._live(token, id_)
        except (Unreachable, NoCluster):
            if not self.config.delete_unreachable:
                raise
            await self._host.warning("forgotten without deleting it: the cluster can't be reached", urn)
            return
        if live is None:
            return
        kube, kind = await self.cluster.kube(), await self._writer.kind(token)
        if token.patch:
            if old.field_manager is not None:
                await self._writer.let_go(kube, kind, live, old.field_manager)
            return
        inputs = desired(old.inputs)
        try:
            gone = await self._writer.delete(kube, kind, live, inputs) is None
        except ApiError as error:
            raise Refused(explain(error, live), error) from None
        if kind == CRD:
            self.cluster.kinds_changed()
        if not gone and not is_true(inputs, SKIP_AWAIT):
            await self._writer.wait_gone(urn, kube, kind, live, timeout(timeout_s, inputs))

    def _check_cancelled(self) -> None:
        if self._writer.cancelled.is_set():
            raise Cancelled("cancelled")

    async def _live(self, token: TypeToken, id_: str) -> Object | None:
        """The object now; None where it, or its whole kind, doesn't exist."""
        namespace, name = parse_id(id_)
        kube = await self.cluster.kube()
        kind = await self._writer.find_kind(token)
        if kind is None:
            return None
        if kind.namespaced and namespace is None:
            namespace = self._namespace_of_provider()
        return await self._writer.ask(lambda: kube.get_or_none(kind, name, namespace))

    def _namespace_of_provider(self) -> str:
        if self._namespace is None:
            self._namespace = self.config.default_namespace()
        return self._namespace

    async def _default_namespace(self, token: TypeToken) -> str | None:
        """The namespace for an object that names none; None where the kind has no namespaces."""
        try:
            kind = await self.cluster.find_kind(token)
        except (ApiError, Unreachable, NoCluster):
            kind = None  # Create says so; until then a kind that nobody knows is taken to have namespaces.
        if kind is not None and not kind.namespaced:
            return None
        return self._namespace_of_provider()

    async def _replace_unready(self, old: State, difference: Difference) -> Difference:
        """A Job that asks for it (`pulumi.com/replaceUnready`) is made anew where it isn't complete."""
        meta, job = old.live.get("metadata") or {}, ("batch/v1", "Job")
        try:
            kube = await self.cluster.kube()
            live = await kube.get_or_none(BUILT_IN[job], meta["name"], meta.get("namespace"))
        except (ApiError, Unreachable, NoCluster):
            return difference
        if live is None or await_.RULES[job].check(live, {}).done:
            return difference
        return replace(difference, replaces=(_REPLACE_UNREADY_PATH,), delete_before_replace=True)


def _kind_of(properties: Properties) -> str | None:
    kind = properties.get("kind")
    return kind if isinstance(kind, str) else None


def _which(properties: Properties) -> tuple[str, ...]:
    """Which object that is: its kind, namespace and name."""
    meta = metadata_of(properties) or {}
    return tuple(
        str(reveal(each)) for each in (properties.get("kind"), meta.get("namespace"), meta.get("name"))
    )


def _without_status(state: Properties) -> Properties:
    return {key: value for key, value in state.items() if key != "status"}
