"""What a manifest says: identities, and what is refused."""

from __future__ import annotations

import pytest

from infra.local.node import podspec
from infra.local.node.podspec import ConfigError, Identity
from switchboard.kube import Object
from tests.infra.local.node.pods import container, pod


@pytest.mark.parametrize(
    ("outer", "inner", "image_uid", "who"),
    [
        ({}, {}, 10001, Identity(10001, 10001, ())),
        ({"runAsUser": 5}, {}, 10001, Identity(5, 0, ())),
        ({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 7}, 0, Identity(7, 6, ())),
        ({"runAsNonRoot": True}, {}, 10001, Identity(10001, 10001, ())),
        ({"fsGroup": 9, "supplementalGroups": [8]}, {}, 1, Identity(1, 1, (8, 9))),
        ({"runAsUser": 5, "runAsGroup": 9, "fsGroup": 9}, {}, 0, Identity(5, 9, ())),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, 0, Identity(0, 0, ())),
    ],
)
def test_identity(outer: Object, inner: Object, image_uid: int, who: Identity) -> None:
    one = container(securityContext=inner)
    assert podspec.identity(pod(one, securityContext=outer), one, image_uid) == who


@pytest.mark.parametrize("outer", [{"runAsNonRoot": True}, {"runAsNonRoot": True, "runAsUser": 0}])
def test_root_is_refused_where_the_pod_forbids_it(outer: Object) -> None:
    one = container()
    with pytest.raises(ConfigError, match="runAsNonRoot"):
        podspec.identity(pod(one, securityContext=outer), one, 0)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (pod(hostNetwork=True), "spec.hostNetwork"),
        (pod(hostPID=True), "spec.hostPID"),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), r"volumes\[0\].hostPath"),
        (pod(volumes=[{"name": "v", "nfs": {}}]), "nfs"),
        (pod(container(securityContext={"privileged": True})), "privileged"),
        (pod(container(securityContext={"capabilities": {"add": ["NET_ADMIN"]}})), "NET_ADMIN"),
        (pod(container(ports=[{"containerPort": 80, "hostPort": 80}])), "hostPort 80"),
        (pod(os={"name": "windows"}), "spec.os.name windows"),
        (pod(shareProcessNamespace=True), "spec.shareProcessNamespace"),
        (pod(hostUsers=False), "spec.hostUsers: false"),
        (pod(resources={"limits": {"cpu": "1"}}), "spec.resources"),
        (pod(securityContext={"sysctls": [{"name": "net.x", "value": "1"}]}), "sysctls (net.x)"),
        (pod(securityContext={"seccompProfile": {"type": "Localhost"}}), "seccompProfile.type Localhost"),
        (pod(container(securityContext={"appArmorProfile": {"type": "Localhost"}})), "appArmorProfile"),
        (pod(container(restartPolicy="Never")), "container main: restartPolicy"),
        (pod(init=[container("i", restartPolicy="OnFailure")]), "container i: restartPolicy"),
        (pod(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}), "spec.dnsConfig"),
        (pod(dnsPolicy="None"), "spec.dnsPolicy None"),
        (pod(dnsConfig={"options": [{"name": "ndots", "value": "1"}]}), "spec.dnsConfig"),
        (
            pod(volumes=[{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}]),
            "volumes[0].emptyDir.medium HugePages-2Mi (volume v)",
        ),
        (pod(securityContext={"seLinuxOptions": {"level": "s0"}}), "spec.securityContext.seLinuxOptions"),
        (
            pod(container(securityContext={"seLinuxOptions": {"level": "s0"}})),
            "container main: securityContext.seLinuxOptions",
        ),
        (pod(container(securityContext={"procMount": "Unmasked"})), "procMount Unmasked"),
        (
            pod(init=[container("i", resources={"claims": [{"name": "gpu"}]})]),
            "container i: resources.claims",
        ),
        (pod(resourceClaims=[{"name": "gpu"}]), "spec.resourceClaims"),
    ],
)
def test_what_would_give_it_the_machine_or_is_not_there_is_refused(body: Object, field: str) -> None:
    why = podspec.refused(body)
    assert why is not None
    assert field.replace("\\", "") in why


def test_ordinary_pods_are_not_refused() -> None:
    volumes: list[Object] = [
        {"name": str(n), kind: {}} for n, kind in enumerate(("emptyDir", "configMap", "secret", "projected"))
    ]
    volumes += [{"name": medium or "disk", "emptyDir": {"medium": medium}} for medium in ("", "Memory")]
    drop = {
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "procMount": "Default",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    sidecar = container("side", restartPolicy="Always")
    body = pod(
        container(securityContext=drop, resources={"limits": {"cpu": "1"}}),
        init=[sidecar],
        volumes=volumes,
        hostNetwork=False,
        hostUsers=True,
        dnsPolicy="ClusterFirst",
        securityContext={"fsGroup": 1, "fsGroupChangePolicy": "Always"},
        os={"name": "linux"},
    )
    assert podspec.refused(body) is None


def test_an_ephemeral_container_is_not_done_but_harms_nobody() -> None:
    body = pod(ephemeralContainers=[{"name": "debug"}])
    assert podspec.refused(body) is None
    assert "spec.ephemeralContainers (debug)" in (podspec.ignored(body) or "")
    assert podspec.ignored(pod()) is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({}, "p"),
        ({"setHostnameAsFQDN": True}, "p"),
        ({"hostname": "h", "subdomain": "s"}, "h"),
        ({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": True}, "h.s.ns.svc.example"),
    ],
)
def test_what_a_pod_is_called(spec: Object, name: str) -> None:
    assert podspec.shown_hostname(pod(**spec), "example") == name


@pytest.mark.parametrize(
    ("policy", "kind", "code", "again"),
    [
        ("Always", "main", 0, True),
        ("OnFailure", "main", 0, False),
        ("OnFailure", "main", 1, True),
        ("Never", "main", 1, False),
        ("Always", "init", 0, False),
        ("Always", "init", 1, True),
        ("Never", "init", 1, False),
        ("Never", "sidecar", 0, True),
    ],
)
def test_restart(policy: str, kind: podspec.ContainerKind, code: int, again: bool) -> None:
    assert podspec.should_restart(policy, kind, code) is again


def test_grace() -> None:
    body = pod(terminationGracePeriodSeconds=7)
    assert podspec.grace_s(body) == 7
    body["metadata"]["deletionGracePeriodSeconds"] = 2
    assert podspec.grace_s(body) == 2, "the deletion's own counts"
    assert podspec.grace_s(pod()) == 30


def test_ports_by_name() -> None:
    one = container(ports=[{"name": "http", "containerPort": 8080}])
    assert podspec.named_port(one, "http") == 8080
    assert podspec.named_port(one, "90") == 90
    with pytest.raises(ValueError, match="no port named 'grpc'"):
        podspec.named_port(one, "grpc")
