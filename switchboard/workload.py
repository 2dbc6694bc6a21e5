"""What runs of a ModelServer: its Deployment, the claim for its copies of models, its disruption budget.

Pure functions of the ModelServer object, without the number of replicas, which is the scaler's. The operator applies
them; whoever judges what a stack declares (checkers, policies) reads the same.

The replicas share one claim, so that one that is started while the registry is away finds the model there, whichever
node it is on: in the core a volume that many nodes mount, on an edge a volume of its node.
"""

from __future__ import annotations

from typing import Any

from switchboard import labels, podspec
from switchboard.api.model_server import MODEL_SERVERS, Spec
from switchboard.data import regions_text
from switchboard.kinds import Kind
from switchboard.kube import Object
from switchboard.registry_users import FOLDER, FOLDER_VARIABLE, secret_name

PORT = 8080
COMPONENT = "model-server"
GRACE_S = 30
LONGEST_START = 4
"""A replica that hasn't started after so many times its start time is started anew."""
_NOT_COPIED = ("pulumi.com/", "kubectl.kubernetes.io/")


def selector(name: str, spec: Spec) -> dict[str, str]:
    """The labels by which the pods of the ModelServer `name` are found."""
    return {
        **podspec.names(name, COMPONENT),
        labels.MODEL_SERVER: spec.fleet_of(name),
        labels.TIER: spec.placement.tier,
    }


def deployment(server: Object, spec: Spec) -> Object:
    """The Deployment of the ModelServer object `server`, whose spec is `spec`; without `replicas`."""
    match = selector(server["metadata"]["name"], spec)
    return {
        "metadata": _meta(server, spec, match),
        "spec": {
            "selector": {"matchLabels": match},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": max(600, 2 * LONGEST_START * spec.capacity.start_seconds),
            # The capacity that the traffic needs is there throughout.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": _pod_meta(server, spec, match), "spec": _pod(server, spec, match)},
        },
    }


def claim(server: Object, spec: Spec) -> Object:
    """The PersistentVolumeClaim for copies of models, which all replicas share."""
    classed = {"storageClassName": spec.cache.storage_class} if spec.cache.storage_class else {}
    meta = _meta(server, spec, selector(server["metadata"]["name"], spec))
    labelled = {**meta["labels"], labels.DATA_CLASS: "internal"}
    return {
        "metadata": {
            **{key: value for key, value in meta.items() if key != "annotations"},
            "name": claim_name(server),
            "labels": labelled,
        },
        "spec": {
            "accessModes": ["ReadWriteOnce" if spec.placement.tier == "edge" else "ReadWriteMany"],
            "resources": {"requests": {"storage": spec.cache.size}},
            **classed,
        },
    }


def budget(server: Object, spec: Spec) -> Object:
    """The PodDisruptionBudget: a drain takes a tenth of the replicas at a time, and one that doesn't serve anyway."""
    match = selector(server["metadata"]["name"], spec)
    return {
        "metadata": _meta(server, spec, match),
        "spec": {
            "maxUnavailable": "10%",  # rounded up: of a single replica it is that one, so that its node can be drained
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": match},
        },
    }


def model_uri(server: Object, spec: Spec) -> str:
    """The model that replicas load: where a release has said what the alias is for them, that version."""
    version = pinned(server)
    if spec.model.alias is not None and version is not None:
        return f"models:/{spec.model.name}/{version}"
    return spec.model.uri


def pinned(server: Object) -> int | None:
    """The version that a release has said a ModelServer's alias is; None where none has."""
    text = (server["metadata"].get("annotations") or {}).get(labels.MODEL_VERSION, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def startup_s(spec: Spec) -> int:
    """How long a container may take to start before it is started anew."""
    return max(120, LONGEST_START * spec.capacity.start_seconds)


def claim_name(server: Object) -> str:
    return f"{server['metadata']['name']}-models"


def owner(obj: Object, kind: Kind = MODEL_SERVERS) -> dict[str, Any]:
    """The reference by which what is made for an object goes with it."""
    meta = obj["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def own_annotations(server: Object) -> dict[str, str]:
    """A ModelServer's annotations without those of the tools that made it."""
    notes = server["metadata"].get("annotations") or {}
    return {key: value for key, value in notes.items() if not key.startswith(_NOT_COPIED)}


def _meta(server: Object, spec: Spec, match: dict[str, str]) -> dict[str, Any]:
    """Metadata of what a ModelServer owns: its own labels and annotations go along, as a Deployment's do."""
    meta = server["metadata"]
    notes = {**own_annotations(server), **_data_regions(spec)}
    made: dict[str, Any] = {
        "name": meta["name"],
        "namespace": meta["namespace"],
        "labels": {**(meta.get("labels") or {}), **match, labels.DATA_CLASS: str(spec.data_class)},
    }
    if notes:
        made["annotations"] = notes
    if "uid" in meta:
        made["ownerReferences"] = [owner(server)]
    return made


def _pod_meta(server: Object, spec: Spec, match: dict[str, str]) -> dict[str, Any]:
    own = server["metadata"].get("labels") or {}
    where = {key: own[key] for key in (labels.SITE, labels.SITE_ROLE, labels.REGION) if key in own}
    if spec.placement.region is not None:
        where[labels.REGION] = spec.placement.region
    return {
        "labels": {**match, **where, labels.DATA_CLASS: str(spec.data_class)},
        "annotations": {**_data_regions(spec), **podspec.scraped(PORT)},
    }


def _data_regions(spec: Spec) -> dict[str, str]:
    return {labels.DATA_REGIONS: regions_text(spec.data_regions)} if spec.data_class.bound_to_regions else {}


def _pod(server: Object, spec: Spec, match: dict[str, str]) -> dict[str, Any]:
    place = spec.placement
    return {
        "serviceAccountName": spec.service_account_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # A volume of many files isn't walked at each start.
        "securityContext": {**podspec.security(), "fsGroupChangePolicy": "OnRootMismatch"},
        "affinity": podspec.placement(place.tier, place.region),
        "tolerations": podspec.tolerations(place.tier),
        "topologySpreadConstraints": podspec.spread(match, strict=False),
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [_container(server, spec)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": claim_name(server)}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            # Without it a replica gets nothing from the registry, and starts all the same where it has a copy.
            {"name": "mlflow-user", "secret": {"secretName": secret_name("serving"), "optional": True}},
        ],
    }


def _container(server: Object, spec: Spec) -> dict[str, Any]:
    service, asks = spec.service_of(server["metadata"]["name"]), spec.resources
    variables = {
        "HOME": "/tmp",
        "PORT": str(PORT),
        "MODEL_URI": model_uri(server, spec),
        "MODEL_CACHE_DIR": "/models",
        "MAX_CONCURRENCY": str(spec.capacity.concurrency),
        "SERVICE_TIER": spec.placement.tier,
    }
    if spec.model.registry is not None:
        variables["MLFLOW_TRACKING_URI"] = spec.model.registry
        variables[FOLDER_VARIABLE] = FOLDER
    return {
        "name": service,
        "image": spec.image,
        # A digest means one content for ever, so there is nothing to ask a registry again.
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", f"serving.{service}"],
        "env": podspec.environment(variables),
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": podspec.probe("/readyz", "http", period_s=1, failures=startup_s(spec)),
        "readinessProbe": podspec.probe("/readyz", "http", period_s=2, failures=2),
        "livenessProbe": podspec.probe("/livez", "http", period_s=10, failures=6, timeout_s=5),
        "resources": podspec.resources(
            asks.cpu, asks.memory, asks.memory_limit, asks.cpu_limit, scratch="256Mi"
        ),
        "securityContext": podspec.container_security(),
        "volumeMounts": [
            {"name": "models", "mountPath": "/models"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "mlflow-user", "mountPath": FOLDER, "readOnly": True},
        ],
    }
