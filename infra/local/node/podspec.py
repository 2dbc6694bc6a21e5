"""What a pod's manifest says, read in one place: its containers by kind, identities, grace, and what is refused here.

Pods are plain dictionaries in the API's own words. Everything here is a pure function of the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from switchboard.kube import Object

ContainerKind = Literal["init", "sidecar", "main"]

FINISHED = ("Succeeded", "Failed")


class ConfigError(Exception):
    """A container that can't be made as its manifest says; for the pod's status `CreateContainerConfigError`."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


@dataclass(frozen=True)
class Identity:
    """Who a container runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def uid(pod: Object) -> str:
    return pod["metadata"]["uid"]


def name(pod: Object) -> str:
    return pod["metadata"]["name"]


def namespace(pod: Object) -> str:
    return pod["metadata"]["namespace"]


def label(pod: Object) -> str:
    """How logs name a pod."""
    return f"{namespace(pod)}/{name(pod)}"


def version(obj: Object) -> int:
    """The resource version as a number: later is greater (0 where there is none)."""
    text = obj["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


def kind_of(container: Object, *, init: bool) -> ContainerKind:
    if not init:
        return "main"
    return "sidecar" if container.get("restartPolicy") == "Always" else "init"


def all_containers(pod: Object) -> list[tuple[ContainerKind, Object]]:
    """Every container in the order of starting: init containers and sidecars as listed, then the main ones."""
    spec = pod["spec"]
    return [(kind_of(c, init=True), c) for c in spec.get("initContainers") or []] + [
        ("main", c) for c in spec["containers"]
    ]


def container(pod: Object, wanted: str) -> Object | None:
    return next((c for _, c in all_containers(pod) if c["name"] == wanted), None)


def restart_policy(pod: Object) -> str:
    return pod["spec"].get("restartPolicy") or "Always"


def should_restart(policy: str, kind: ContainerKind, exit_code: int) -> bool:
    """Whether a container that ended is started again. A sidecar always is; an init container that worked never is."""
    if kind == "sidecar":
        return True
    if kind == "init":
        return exit_code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def deleting(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def grace_s(pod: Object) -> float:
    """How long the pod's containers get to end: what the deletion says, else the pod's own."""
    given = pod["metadata"].get("deletionGracePeriodSeconds")
    if given is None:
        given = pod["spec"].get("terminationGracePeriodSeconds")
    return float(30 if given is None else given)


def hostname(pod: Object) -> str:
    return (pod["spec"].get("hostname") or name(pod))[:63]


def shown_hostname(pod: Object, domain: str) -> str:
    """What `hostname` says in the pod's containers: its name, or the full one where the pod asks so."""
    full = full_hostname(pod, domain) if pod["spec"].get("setHostnameAsFQDN") else None
    return full or hostname(pod)


def full_hostname(pod: Object, domain: str) -> str | None:
    """`<hostname>.<subdomain>.<namespace>.svc.<domain>`, for a pod that has a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    return f"{hostname(pod)}.{subdomain}.{namespace(pod)}.svc.{domain}" if subdomain else None


def refused(pod: Object) -> str | None:
    """Why this pod can't run here, naming the field; None where it can.

    Containers are processes on the machine's own network: what would give a pod the machine, and what a machine
    without a container engine doesn't have, is refused rather than quietly left out.
    """
    spec = pod["spec"]
    reason = _refused_of_pod(spec) or _refused_of_volumes(spec)
    for kind, one in all_containers(pod):
        reason = reason or _refused_of_container(kind, one)
    return f"{reason} is not supported by the embedded cloud" if reason else None


def _refused_of_pod(spec: Object) -> str | None:
    """A field of the pod's that would change what its containers see of each other, or of the machine."""
    for field in (
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "shareProcessNamespace",
        "dnsConfig",
        "resourceClaims",
    ):
        if spec.get(field):
            return f"spec.{field}"
    if (system := (spec.get("os") or {}).get("name", "linux")) != "linux":
        return f"spec.os.name {system}"
    if spec.get("hostUsers") is False:
        return "spec.hostUsers: false"
    if spec.get("dnsPolicy") == "None":
        return "spec.dnsPolicy None"
    if spec.get("resources"):
        return "spec.resources (of the pod as a whole)"
    security = spec.get("securityContext") or {}
    if sysctls := security.get("sysctls"):
        return f"spec.securityContext.sysctls ({', '.join(s['name'] for s in sysctls)})"
    return f"spec.securityContext.{reason}" if (reason := _refused_of_security(security)) else None


def _refused_of_volumes(spec: Object) -> str | None:
    known = {"name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim"}
    for index, volume in enumerate(spec.get("volumes") or []):
        where = f"spec.volumes[{index}]"
        if other := sorted(set(volume) - known):
            return f"{where}.{other[0]} (volume {volume['name']})"
        medium = (volume.get("emptyDir") or {}).get("medium")
        if medium not in (None, "", "Memory"):
            return f"{where}.emptyDir.medium {medium} (volume {volume['name']})"
    return None


def _refused_of_container(kind: ContainerKind, one: Object) -> str | None:
    where, security = f"container {one['name']}:", one.get("securityContext") or {}
    if security.get("privileged"):
        return f"{where} securityContext.privileged"
    if added := (security.get("capabilities") or {}).get("add"):
        return f"{where} securityContext.capabilities.add ({', '.join(added)})"
    if security.get("procMount") not in (None, "Default"):
        return f"{where} securityContext.procMount {security['procMount']}"
    if reason := _refused_of_security(security):
        return f"{where} securityContext.{reason}"
    if (one.get("resources") or {}).get("claims"):
        return f"{where} resources.claims"
    if kind != "sidecar" and (one.get("restartPolicy") or one.get("restartPolicyRules")):
        return f"{where} restartPolicy"
    if one.get("volumeDevices"):
        return f"{where} volumeDevices"
    for port in one.get("ports") or []:
        if port.get("hostPort"):
            return f"{where} hostPort {port['hostPort']}"
    return None


def _refused_of_security(security: Object) -> str | None:
    """What the machine would have to have; the profiles `RuntimeDefault` and `Unconfined` are taken as given."""
    if security.get("seLinuxOptions"):
        return "seLinuxOptions"
    for key in ("seccompProfile", "appArmorProfile"):
        if (security.get(key) or {}).get("type") == "Localhost":
            return f"{key}.type Localhost"
    return None


def ignored(pod: Object) -> str | None:
    """What was asked of a running pod and is not done; the pod goes on without it."""
    if added := pod["spec"].get("ephemeralContainers"):
        names = ", ".join(one["name"] for one in added)
        return f"spec.ephemeralContainers ({names}) is not supported by the embedded cloud"
    return None


def resized(before: Object, after: Object) -> list[str]:
    """The containers whose resources are others than before."""
    known = {one["name"]: one.get("resources") for _, one in all_containers(before)}
    return [one["name"] for _, one in all_containers(after) if one.get("resources") != known.get(one["name"])]


def identity(pod: Object, one: Object, image_uid: int) -> Identity:
    """The user and groups of a container: its own context, else the pod's, else the image's user.

    Raises:
        ConfigError: it would be root although `runAsNonRoot` is set.
    """
    outer, inner = pod["spec"].get("securityContext") or {}, one.get("securityContext") or {}

    def setting(key: str) -> Any:
        return inner[key] if inner.get(key) is not None else outer.get(key)

    user = setting("runAsUser")
    run_uid = image_uid if user is None else int(user)
    group = setting("runAsGroup")
    # Without a group of its own a user that the image doesn't know gets group 0, as with any container runtime.
    run_gid = int(group) if group is not None else (image_uid if user is None else 0)
    if setting("runAsNonRoot") and run_uid == 0:
        why = "image will run as root" if user is None else "container's runAsUser breaks non-root policy"
        raise ConfigError(
            f"container has runAsNonRoot and {why} (pod: {label(pod)}, container: {one['name']})"
        )
    groups = {int(g) for g in outer.get("supplementalGroups") or []}
    if (fs_group := outer.get("fsGroup")) is not None:
        groups.add(int(fs_group))
    return Identity(run_uid, run_gid, tuple(sorted(groups - {run_gid})))


def fs_group(pod: Object) -> int | None:
    given = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if given is None else int(given)


def fs_group_always(pod: Object) -> bool:
    """Whether a claim's volume is given to the `fsGroup` whole at each start of the pod, whoever owns its root."""
    policy = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy")
    return policy != "OnRootMismatch"


def named_port(one: Object, port: int | str) -> int:
    """A port number from a number or a container port's name.

    Raises:
        ValueError: no port of that name.
    """
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for known in one.get("ports") or []:
        if known.get("name") == port:
            return int(known["containerPort"])
    raise ValueError(f"container {one['name']} has no port named {port!r}")
