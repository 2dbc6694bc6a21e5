"""The ModelServers that there are, as kopf's events tell of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from operators.servers.server import Server
from switchboard.api.model_server import Spec, Status

log = logging.getLogger(__name__)

_KEPT = ("name", "namespace", "uid", "labels", "annotations", "generation", "creationTimestamp")


class Registry:
    """By name. A spec that can't be read leaves the one before in force, and says so."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.synced = False
        """Whether they are all known: before that, one that isn't here may well be there."""

    def fill(self, listed: Iterable[Mapping[str, Any]]) -> None:
        """With all that there are; what was deleted while nobody looked is noticed."""
        there = list(listed)
        known = {one["metadata"]["uid"] for one in there}
        for server in list(self.servers.values()):
            if server.object["metadata"]["uid"] not in known:
                self.drop(server)
        for one in there:
            self.put(one)
        self.synced = True

    def put(self, obj: Mapping[str, Any]) -> None:
        """A ModelServer that is new or has changed; one that is being deleted is none any more."""
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return self.remove(obj)
        kept = {"metadata": {key: _plain(meta[key]) for key in _KEPT if key in meta}}
        known = self.servers.get(meta["name"])
        if known is not None and known.object["metadata"]["uid"] != meta["uid"]:
            known = None  # another one of that name
        spec, problem = read(obj.get("spec") or {})
        status = _status(obj.get("status"))
        if known is None:
            known = self.servers[meta["name"]] = Server(meta["name"], kept, spec)
            known.changes.extend(status.last_decisions if status is not None else ())
        known.told_status = status
        if not known.busy:
            # Whoever wrote it: what isn't as it should be is written at the next tick.
            known.status = status
        if problem is not None and problem != known.problem:
            log.warning("%s: %s", meta["name"], problem)
        if kept != known.object or spec != known.spec:
            known.marks = None
            known.retry_at = 0.0
        known.object, known.spec, known.problem = kept, spec or known.spec, problem

    def remove(self, obj: Mapping[str, Any]) -> None:
        """A ModelServer that was deleted."""
        known = self.servers.get(obj["metadata"]["name"])
        if known is not None and known.object["metadata"]["uid"] == obj["metadata"]["uid"]:
            del self.servers[known.name]

    def drop(self, server: Server) -> None:
        """One that turned out not to be there any more."""
        if self.servers.get(server.name) is server:
            log.info("%s is gone", server.name)
            del self.servers[server.name]


def read(spec: Mapping[str, Any]) -> tuple[Spec | None, str | None]:
    """A spec, or why it can't be read, in a sentence that names the field."""
    try:
        return Spec.model_validate(_plain(spec)), None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["spec", *(str(part) for part in first["loc"])])
        return None, f"{place}: {first['msg'].removeprefix('Value error, ')}"


def _status(status: Mapping[str, Any] | None) -> Status | None:
    try:
        return Status.model_validate(_plain(status)) if status else None
    except ValidationError:
        return None  # of an older operator, say: it is written anew


def _plain(value: Any) -> Any:
    """Dictionaries and lists of kopf's views."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
