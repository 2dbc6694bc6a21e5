"""Every rule of what can't be changed in place, against the real API server: one change that replaces the object,
and one beside it that doesn't.

The server is asked as well: a rule stands for a change that it refuses, or that the official plugin replaces for.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.plugin.diff import IDENTITY, REPLACES
from infra.plugin.kinds import BUILT_IN
from infra.plugin.wire import Properties
from switchboard.kube import CONFIG_MAPS, ApiError, Kind
from tests.infra.plugin.conftest import CONFIG_MAP, Engine

LABELS = {"labels": {"l": "1"}}
RBAC = "rbac.authorization.k8s.io"
STORAGE = "storage.k8s.io"


@dataclass(frozen=True)
class Case:
    """From `old`, `kept` is a change in place and `new` (a change of `path`) a replacement."""

    group: str
    kind: str
    path: str
    old: Properties
    new: Properties
    kept: Properties = field(default_factory=lambda: {"metadata": LABELS})
    version: str = "v1"
    refused: bool = True
    """Whether the API server refuses the change of `path` in place."""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def template(image: str = "i", labels: str = "b", **spec: Any) -> Properties:
    return {
        "metadata": {"labels": {"a": labels}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def workload(**spec: Any) -> Properties:
    return {"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template(), **spec}}


MOVED = {"selector": {"matchLabels": {"a": "c"}}, "template": template(labels="c")}


def daemon_set(**spec: Any) -> Properties:
    made = workload(**spec)
    made["spec"].pop("replicas")
    # No node has it, so that no pods come and go.
    made["spec"]["template"] = {
        **made["spec"]["template"],
        "spec": {**template()["spec"], "nodeSelector": {"nowhere": "true"}},
    }
    return made


def stateful_set(**spec: Any) -> Properties:
    return workload(serviceName="s", **spec)


def stateful(path: str, old: Properties, new: Properties, *, refused: bool = True) -> Case:
    return Case(
        "apps", "StatefulSet", path, stateful_set(**old), workload(**{"serviceName": "s", **new}),
        kept=stateful_set(**old, minReadySeconds=1), refused=refused,
    )  # fmt: skip


def volume_claim_template(name: str) -> Properties:
    resources = {"requests": {"storage": "1Mi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
    return {"metadata": {"name": name}, "spec": spec}


def job(**spec: Any) -> Properties:
    return {"spec": {"suspend": True, "template": template(restartPolicy="Never"), **spec}}


def job_case(path: str, old: Properties, new: Properties, *, refused: bool = True) -> Case:
    return Case("batch", "Job", path, job(**old), job(**new), job(**old, backoffLimit=2), refused=refused)


def claim(**spec: Any) -> Properties:
    defaults = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {"spec": {**defaults, "storageClassName": "none", **spec}}


def claim_case(path: str, old: Any, new: Any) -> Case:
    def spec(value: Any) -> Properties:
        return {} if value is None else {path: value}

    return Case("", "PersistentVolumeClaim", f"spec.{path}", claim(**spec(old)), claim(**spec(new)))


def volume(**spec: Any) -> Properties:
    defaults = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}}
    return {"spec": {"persistentVolumeReclaimPolicy": "Retain", **defaults, **spec}}


def volume_case(source: str, old: Any, new: Any, **more: Any) -> Case:
    return Case(
        "", "PersistentVolume", f"spec.{source}",
        volume(**{source: old}, **more), volume(**{source: new}, **more),
        kept=volume(**{source: old}, **more, mountOptions=["ro"]),
    )  # fmt: skip


ON_A_NODE = {
    "required": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}
        ]
    }
}
VOLUME_SOURCES: dict[str, Any] = {
    "awsElasticBlockStore": lambda x: {"volumeID": x},
    "azureDisk": lambda x: {"diskName": x, "diskURI": f"/subscriptions/{x}", "kind": "Managed"},
    "azureFile": lambda x: {"secretName": x, "shareName": "s", "secretNamespace": "n"},
    "cephfs": lambda x: {"monitors": [x]},
    "cinder": lambda x: {"volumeID": x},
    "csi": lambda x: {"driver": "d.example.com", "volumeHandle": x},
    "fc": lambda x: {"targetWWNs": [x], "lun": 1},
    "flexVolume": lambda x: {"driver": f"example.com/{x}"},
    "gcePersistentDisk": lambda x: {"pdName": x},
    "glusterfs": lambda x: {"endpoints": x, "path": "p"},
    "hostPath": lambda x: {"path": f"/{x}"},
    "iscsi": lambda x: {"targetPortal": "127.0.0.1:3260", "iqn": f"iqn.2026-01.com.example:{x}", "lun": 1},
    "local": lambda x: {"path": f"/{x}"},
    "nfs": lambda x: {"server": "s", "path": f"/{x}"},
    "photonPersistentDisk": lambda x: {"pdID": x},
    "portworxVolume": lambda x: {"volumeID": x},
    "quobyte": lambda x: {"registry": "r:1", "volume": x},
    "rbd": lambda x: {"monitors": [x], "image": "i"},
    "scaleIO": lambda x: {"gateway": "g", "system": "s", "volumeName": x, "secretRef": {"name": "s"}},
    "storageos": lambda x: {"volumeName": x},
    "vsphereVolume": lambda x: {"volumePath": x},
}

FOREVER = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
PORTS = {"ports": [{"port": 80}]}


def binding(kind: str) -> Case:
    def to(role: str, *subjects: str) -> Properties:
        people = [{"kind": "User", "name": name, "apiGroup": RBAC} for name in subjects]
        return {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": people}

    return Case(RBAC, kind, "roleRef", to("a", "x"), to("b", "x"), kept=to("a", "x", "y"))


def storage_class(path: str, new: Any) -> Case:
    old = {
        "provisioner": "example.com/a",
        "parameters": {"p": "1"},
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
    return Case(STORAGE, "StorageClass", path, old, {**old, path: new}, {**old, "allowVolumeExpansion": True})


def priority(path: str, new: Any) -> Case:
    old = {"value": 5, "preemptionPolicy": "Never", "description": "d"}
    return Case(
        "scheduling.k8s.io", "PriorityClass", path, old, {**old, path: new}, {**old, "description": "e"}
    )


def limited(pods: str, scope: str) -> Properties:
    return {"spec": {"hard": {"pods": pods}, "scopes": [scope]}}


def pod(image: str = "i", args: str = "x", **spec: Any) -> Properties:
    return {"spec": {"containers": [{"name": "c", "image": image, "args": [args]}], **spec}}


CASES = [
    Case("apps", "Deployment", "spec.selector", workload(), workload(**MOVED), kept=workload(replicas=1)),
    Case("apps", "ReplicaSet", "spec.selector", workload(), workload(**MOVED), kept=workload(replicas=1)),
    Case(
        "apps", "DaemonSet", "spec.selector", daemon_set(), daemon_set(**MOVED),
        kept=daemon_set(minReadySeconds=1),
    ),
    stateful("spec.selector", {}, MOVED),
    stateful("spec.serviceName", {}, {"serviceName": "t"}),
    stateful("spec.podManagementPolicy", {}, {"podManagementPolicy": "Parallel"}),
    stateful("spec.volumeClaimTemplates", {}, {"volumeClaimTemplates": [volume_claim_template("d")]}),
    stateful("spec.revisionHistoryLimit", {"revisionHistoryLimit": 5}, {"revisionHistoryLimit": 6}, refused=False),
    job_case("spec.template", {}, {"template": template("j", restartPolicy="Never")}),
    job_case("spec.completions", {"completions": 1}, {"completions": 2}),
    job_case("spec.parallelism", {"parallelism": 1}, {"parallelism": 2}, refused=False),
    job_case(
        "spec.completionMode",
        {"completions": 1, "completionMode": "NonIndexed"}, {"completions": 1, "completionMode": "Indexed"},
    ),
    job_case(
        "spec.selector",
        {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}},
        {
            "manualSelector": True,
            "selector": {"matchLabels": {"a": "c"}},
            "template": template(labels="c", restartPolicy="Never"),
        },
    ),
    job_case(
        "spec.manualSelector", {}, {"manualSelector": True, "selector": {"matchLabels": {"a": "b"}}}
    ),
    claim_case("accessModes", ["ReadWriteOnce"], ["ReadOnlyMany"]),
    claim_case("storageClassName", "a", "b"),
    claim_case("selector", {"matchLabels": {"a": "b"}}, {"matchLabels": {"a": "c"}}),
    claim_case("volumeName", "a", "b"),
    claim_case("volumeMode", "Filesystem", "Block"),
    claim_case(
        "dataSource",
        {"kind": "PersistentVolumeClaim", "name": "a"}, {"kind": "PersistentVolumeClaim", "name": "b"},
    ),
    claim_case(
        "dataSourceRef",
        {"kind": "PersistentVolumeClaim", "name": "a"}, {"kind": "PersistentVolumeClaim", "name": "b"},
    ),
    *(
        volume_case(source, make("a"), make("b"), **({"nodeAffinity": ON_A_NODE} if source == "local" else {}))
        for source, make in VOLUME_SOURCES.items()
    ),
    Case(
        "", "PersistentVolume", "spec.volumeMode",
        volume(csi=VOLUME_SOURCES["csi"]("a"), volumeMode="Filesystem"),
        volume(csi=VOLUME_SOURCES["csi"]("a"), volumeMode="Block"),
    ),
    Case(
        "", "Pod", "spec", pod(), pod(args="y", tolerations=[FOREVER]), kept=pod(tolerations=[FOREVER]),
    ),
    Case(
        "", "Pod", "spec", pod(), pod(image="j", activeDeadlineSeconds=60), kept=pod(activeDeadlineSeconds=60),
        refused=False,
    ),
    Case("", "ConfigMap", "data", {"data": {"a": "1"}}, {"data": {"a": "2"}}, refused=False),
    Case("", "ConfigMap", "binaryData", {"binaryData": {"a": "MQ=="}}, {"binaryData": {"a": "Mg=="}}, refused=False),
    Case("", "Secret", "data", {"data": {"a": "MQ=="}}, {"data": {"a": "Mg=="}}, refused=False),
    Case("", "Secret", "stringData", {"stringData": {"a": "1"}}, {"stringData": {"a": "2"}}, refused=False),
    Case("", "Secret", "type", {"type": "a.dev/b", "data": {"a": "MQ=="}}, {"type": "a.dev/c", "data": {"a": "MQ=="}}),
    Case(
        "", "Service", "spec.clusterIP", {"spec": PORTS}, {"spec": {**PORTS, "clusterIP": "None"}},
        kept={"spec": {"ports": [{"port": 81}]}},
    ),
    Case(
        "", "Service", "spec.clusterIPs", {"spec": {**PORTS, "clusterIPs": ["None"], "clusterIP": "None"}},
        {"spec": {**PORTS, "clusterIP": "None"}}, refused=False,
    ),
    Case(
        "", "ResourceQuota", "spec.scopes", limited("1", "BestEffort"), limited("1", "NotBestEffort"),
        kept=limited("2", "BestEffort"),
    ),
    binding("RoleBinding"),
    binding("ClusterRoleBinding"),
    storage_class("parameters", {"p": "2"}),
    storage_class("provisioner", "example.com/b"),
    storage_class("reclaimPolicy", "Retain"),
    storage_class("volumeBindingMode", "WaitForFirstConsumer"),
    priority("value", 6),
    priority("preemptionPolicy", "PreemptLowerPriority"),
]  # fmt: skip


def test_every_rule_has_a_case() -> None:
    wanted = {(group, kind, path) for (group, kind), rules in REPLACES.items() for path in rules}
    assert {(case.group, case.kind, case.path) for case in CASES} == wanted


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_replaced_for_this_and_not_for_that(remote: Engine, case: Case) -> None:
    kind = BUILT_IN[case.api_version, case.kind]
    type_ = f"kubernetes:{case.api_version if case.group else 'core/v1'}:{case.kind}"
    name = f"t{uuid.uuid4().hex[:8]}"

    def whole(properties: Properties) -> Properties:
        meta = {
            "name": name,
            "annotations": {"pulumi.com/skipAwait": "true"},
            **properties.get("metadata", {}),
        }
        if kind.namespaced:
            meta["namespace"] = remote.namespace
        return {**properties, "metadata": meta}

    assert await remote.up(type_, "x", whole(case.old)) == "created"
    try:
        uid = remote.states["x"]["metadata"]["uid"]
        assert await remote.up(type_, "x", whole(case.old)) == "same"
        assert await remote.up(type_, "x", whole({**case.old, **case.kept})) == "updated"
        assert remote.states["x"]["metadata"]["uid"] == uid
        new = whole(case.new)
        refusal = await _refusal(remote, kind, new, remote.states["x"]["__fieldManager"])
        assert (refusal is not None) is case.refused, refusal
        assert await remote.up(type_, "x", new) == "replaced (deleted first)"
        assert remote.states["x"]["metadata"]["uid"] != uid
    finally:
        await remote.destroy(type_, "x")


IDENTITIES = {
    "metadata.name": ({"name": "y"}, "replaced"),
    "metadata.namespace": ({"namespace": "default"}, "replaced"),
}


@pytest.mark.parametrize("path", IDENTITY)
async def test_another_name_or_namespace_is_another_object(remote: Engine, path: str) -> None:
    meta = {"name": f"x-{uuid.uuid4().hex[:8]}", "namespace": remote.namespace}
    changed, how = IDENTITIES[path]
    await remote.up(CONFIG_MAP, "x", {"metadata": meta})
    assert await remote.up(CONFIG_MAP, "x", {"metadata": {**meta, **LABELS}}) == "updated"
    assert await remote.up(CONFIG_MAP, "x", {"metadata": {**meta, **changed}}) == how
    assert await remote.kube.get_or_none(CONFIG_MAPS, meta["name"], meta["namespace"]) is None
    await remote.destroy(CONFIG_MAP, "x")


async def _refusal(remote: Engine, kind: Kind, body: Properties, manager: str) -> str | None:
    """What the API server says to the change in place."""
    try:
        await remote.kube.apply(kind, body, field_manager=manager, force=True, dry_run=True)
    except ApiError as error:
        return error.message
    return None
