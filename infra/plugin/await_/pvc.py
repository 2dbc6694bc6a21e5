"""A PersistentVolumeClaim is ready when it is bound.

A claim of a storage class that binds when the first pod uses it (`WaitForFirstConsumer`) isn't waited for: that pod
comes later. A claim that has lost its volume failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from infra.plugin.await_.rule import DONE, Related, Rule, Seen, Verdict, failed, missing
from switchboard.kube import STORAGE_CLASSES, Object

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def check(live: Object, seen: Seen) -> Verdict:
    phase = live.get("status", {}).get("phase")
    if phase == "Bound":
        return DONE
    if phase == "Lost":
        return failed("its volume is lost")
    wanted = live["spec"].get("storageClassName")
    found = _class(wanted, seen.get("storageclasses", ()))
    if found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return DONE
    if wanted and found is None:
        return missing(f"not bound: there is no storage class {wanted}")
    return missing(f"phase is {phase or 'not set yet'}, not Bound")


def _class(name: str | None, classes: Sequence[Object]) -> Object | None:
    for item in classes:
        meta = item["metadata"]
        if meta["name"] == name or (name is None and (meta.get("annotations") or {}).get(_DEFAULT) == "true"):
            return item
    return None


RULE = Rule(check, (Related(STORAGE_CLASSES),))
