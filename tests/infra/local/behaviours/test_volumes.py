"""Volumes: what is in them, whose they are, how they change, and which outlive their pods."""

from __future__ import annotations

import base64
import json

import pytest

from switchboard.kube import (
    CONFIG_MAPS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    ApiError,
    Object,
)
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    TOKEN_REVIEWS,
    claim,
    mount,
    over,
    phase,
    pod,
    ready,
    sh,
    waiting,
)
from tests.infra.local.behaviours.scenario import behaviour, behaviours

EMPTY = "[sig-storage] EmptyDir volumes should support ({}) [LinuxOnly] [Conformance] [NodeConformance]"
NOBODY = {"runAsUser": 1001, "runAsGroup": 1001}


@behaviours(
    {
        EMPTY.format(f"{who},0{mode},{medium}"): (who, mode, medium)
        for who in ("root", "non-root")
        for mode in ("644", "666", "777")
        for medium in ("tmpfs", "default")
    }
)
async def test_empty_dir(space: Space, case: tuple[str, str, str]) -> None:
    who, mode, medium = case
    volume = {"name": "v", "emptyDir": {"medium": "Memory"} if medium == "tmpfs" else {}}
    script = (
        f"umask 0; echo content > /v/f && chmod 0{mode} /v/f; stat -c %a /v/f; cat /v/f; stat -f -c %T /v"
    )
    security = {"securityContext": NOBODY} if who == "non-root" else {}
    container = sh(script, volumeMounts=[mount("v", "/v")], **security)
    found = (await space.output(pod("p", container, volumes=[volume]))).split()
    assert found[:2] == [mode, "content"]
    assert (found[2] == "tmpfs") or medium == "default"


@behaviour(
    "[sig-storage] EmptyDir volumes volume on default medium should have the correct mode [LinuxOnly] "
    "[Conformance] [NodeConformance]",
    "[sig-storage] EmptyDir volumes volume on tmpfs should have the correct mode [LinuxOnly] [Conformance] "
    "[NodeConformance]",
    "[sig-storage] EmptyDir volumes when FSGroup is specified [LinuxOnly] new files should be created with "
    "FSGroup ownership when container is non-root [NodeConformance]",
    "[sig-storage] EmptyDir volumes when FSGroup is specified [LinuxOnly] volume on tmpfs should have the "
    "correct mode using FSGroup [NodeConformance]",
)
async def test_empty_dir_modes(space: Space) -> None:
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    mounts = [mount("disk", "/disk"), mount("memory", "/memory")]
    look = "for d in /disk /memory; do touch $d/f; stat -c '%a %g' $d $d/f; done"
    plain = (await space.output(pod("p", sh(look, volumeMounts=mounts), volumes=volumes))).splitlines()
    assert (plain[0], plain[2]) == ("777 0", "777 0")
    grouped = pod(
        "q", sh(look, volumeMounts=mounts), volumes=volumes, securityContext={**NOBODY, "fsGroup": 123}
    )
    lines = (await space.output(grouped)).splitlines()
    assert [line.split()[1] for line in lines] == ["123"] * 4
    assert (lines[0].split()[0], lines[2].split()[0]) == ("2777", "2777")


@behaviour(
    "[sig-storage] EmptyDir volumes pod should support shared volumes between containers [Conformance]"
)
async def test_shared(space: Space) -> None:
    mounts = [mount("v", "/v")]
    writer = sh("echo hello > /v/new && mv /v/new /v/f", "writer", volumeMounts=mounts)
    reader = sh("while ! test -e /v/f; do sleep 0.1; done; cat /v/f", volumeMounts=mounts)
    assert await space.output(pod("p", writer, reader, volumes=[{"name": "v", "emptyDir": {}}])) == "hello\n"


@behaviour(
    "[sig-storage] EmptyDir volumes pod should support memory backed volumes of specified size [LinuxOnly]",
)
async def test_memory_of_a_size(space: Space) -> None:
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}
    container = sh("df -k --output=size /v | tail -1", volumeMounts=[mount("v", "/v")])
    assert (await space.output(pod("p", container, volumes=[volume]))).strip() == "8192"


@behaviours(
    {
        "[sig-storage] ConfigMap should be consumable from pods in volume [Conformance] [NodeConformance]": (
            {},
            {},
            "./data-1 644 value-1",
        ),
        "[sig-storage] ConfigMap should be consumable from pods in volume as non-root [Conformance] "
        "[NodeConformance]": ({}, NOBODY, "./data-1 644 value-1"),
        "[sig-storage] ConfigMap should be consumable from pods in volume with defaultMode set [LinuxOnly] "
        "[Conformance] [NodeConformance]": ({"defaultMode": 0o400}, {}, "./data-1 400 value-1"),
        "[sig-storage] ConfigMap should be consumable from pods in volume as non-root with defaultMode and "
        "fsGroup set [LinuxOnly] [NodeConformance]": (
            {"defaultMode": 0o440},
            {**NOBODY, "fsGroup": 1002},
            "./data-1 440 value-1",
        ),
        "[sig-storage] ConfigMap should be consumable from pods in volume with mappings [Conformance] "
        "[NodeConformance]": (
            {"items": [{"key": "data-1", "path": "path/to/data"}]},
            {},
            "./path/to/data 644 value-1",
        ),
        "[sig-storage] ConfigMap should be consumable from pods in volume with mappings as non-root "
        "[Conformance] [NodeConformance]": (
            {"items": [{"key": "data-1", "path": "path/to/data"}]},
            NOBODY,
            "./path/to/data 644 value-1",
        ),
        "[sig-storage] ConfigMap should be consumable from pods in volume with mappings and Item mode set "
        "[LinuxOnly] [Conformance] [NodeConformance]": (
            {"items": [{"key": "data-1", "path": "path/to/data", "mode": 0o400}]},
            {},
            "./path/to/data 400 value-1",
        ),
    }
)
async def test_config_map(space: Space, case: tuple[Object, Object, str]) -> None:
    given, security, expected = case
    await space.create(CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {"data-1": "value-1"}})
    volumes = [{"name": "v", "configMap": {"name": "cm", **given}}]
    found = expected.split()[0]
    container = sh(
        f"cd /v; echo {found} $(stat -Lc %a {found}) $(cat {found})",
        volumeMounts=[mount("v", "/v")],
    )
    out = await space.output(pod("p", container, volumes=volumes, securityContext=security))
    assert expected in out.splitlines()


@behaviour(
    "[sig-storage] ConfigMap updates should be reflected in volume [Conformance] [NodeConformance]",
    "[sig-storage] ConfigMap optional updates should be reflected in volume [Conformance] [NodeConformance]",
    "[sig-storage] ConfigMap binary data should be reflected in volume [Conformance] [NodeConformance]",
)
async def test_config_map_updates(space: Space) -> None:
    """One that changes, one that goes, one that comes; and bytes that are no text."""
    raw = base64.b64encode(b"\xde\xca\xfe\xba\xd0\xfe\xff").decode()
    live = {"metadata": {"name": "live"}, "data": {"a": "one"}, "binaryData": {"bytes": raw}}
    await space.create(CONFIG_MAPS, live)
    await space.create(CONFIG_MAPS, {"metadata": {"name": "goes"}, "data": {"a": "one"}})
    names = ("live", "goes", "comes")
    volumes = [{"name": n, "configMap": {"name": n, "optional": True}} for n in names]
    script = (
        "od -An -tx1 /live/bytes; test -e /goes/a && ! test -e /comes/a && echo begun; "
        "while ! grep -q two /live/a || test -e /goes/a || ! test -e /comes/a; do sleep 0.1; done; echo changed"
    )
    await space.pod(pod("p", sh(script, volumeMounts=[mount(n, f"/{n}") for n in names]), volumes=volumes))
    await space.until("p", ready)
    await space.said("p", " de ca fe ba d0 fe ff\nbegun\n")
    await space.patch("live", {"data": {"a": "two"}}, CONFIG_MAPS)
    await space.delete("goes", CONFIG_MAPS)
    await space.create(CONFIG_MAPS, {"metadata": {"name": "comes"}, "data": {"a": "one"}})
    assert phase(await space.until("p", over)) == "Succeeded"
    assert await space.log("p") == " de ca fe ba d0 fe ff\nbegun\nchanged\n"


@behaviour(
    "[sig-storage] Secrets should be consumable from pods in volume as non-root with defaultMode and fsGroup "
    "set [LinuxOnly] [Conformance] [NodeConformance]",
    "[sig-storage] Secrets should be consumable from pods in volume with mappings and Item Mode set "
    "[LinuxOnly] [Conformance] [NodeConformance]",
    "[sig-storage] Secrets should be consumable in multiple volumes in a pod [Conformance] [NodeConformance]",
    "[sig-storage] Secrets optional updates should be reflected in volume [Conformance] [NodeConformance]",
)
async def test_secrets(space: Space) -> None:
    await space.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"data-1": "value-1"}})
    volumes = [
        {"name": "one", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {
            "name": "two",
            "secret": {"secretName": "s", "items": [{"key": "data-1", "path": "new/p", "mode": 0o400}]},
        },
        {"name": "opt", "secret": {"secretName": "later", "optional": True}},
    ]
    mounts = [mount(v["name"], f"/{v['name']}") for v in volumes]
    script = (
        "stat -Lc '%a %g' /one/data-1; cat /one/data-1; echo; stat -Lc %a /two/new/p; "
        "while ! test -e /opt/k; do sleep 0.1; done"
    )
    security = {**NOBODY, "fsGroup": 1002}
    await space.pod(pod("p", sh(script, volumeMounts=mounts), volumes=volumes, securityContext=security))
    await space.until("p", ready)
    await space.create(SECRETS, {"metadata": {"name": "later"}, "stringData": {"k": "v"}})
    assert phase(await space.until("p", over)) == "Succeeded"
    assert await space.log("p") == "440 1002\nvalue-1\n440\n", (
        "with fsGroup the group may read, whatever the mode"
    )


@behaviour(
    "[sig-storage] Secrets Should fail non-optional pod creation due to the key in the secret object does "
    "not exist [Slow]",
    "[sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]",
)
async def test_a_key_that_is_not_there(space: Space) -> None:
    await space.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "immutable": True})
    with pytest.raises(ApiError, match="immutable"):
        await space.patch("s", {"stringData": {"a": "c"}}, SECRETS)
    volumes = [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "none", "path": "p"}]}}]
    await space.pod(pod("p", sh(FOREVER, volumeMounts=[mount("v", "/v")]), volumes=volumes))
    assert "references non-existent" in (await space.event("p", "FailedMount"))["message"]
    await space.until("p", lambda p: waiting(p) == "ContainerCreating")


@behaviour(
    "[sig-storage] Projected combined should project all components that make up the projection API "
    "[Projection] [Conformance] [NodeConformance]",
    "[sig-storage] Downward API volume should update labels on modification [Conformance] [NodeConformance]",
    "[sig-storage] Downward API volume should update annotations on modification [Conformance] "
    "[NodeConformance]",
    "[sig-storage] Downward API volume should provide container's cpu limit [Conformance] [NodeConformance]",
    "[sig-storage] Downward API volume should provide podname only [Conformance] [NodeConformance]",
    "[sig-storage] Downward API volume should set mode on item file [LinuxOnly] [Conformance] "
    "[NodeConformance]",
    "[sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if "
    "the limit is not set [Conformance] [NodeConformance]",
)
async def test_projected(space: Space) -> None:
    await space.create(CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {"c": "config"}})
    await space.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"s": "secret"}})
    items = [
        {"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}, "mode": 0o400},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        {
            "path": "cpu",
            "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"},
        },
        {"path": "memory", "resourceFieldRef": {"containerName": "main", "resource": "limits.memory"}},
    ]
    sources = [{"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}, {"downwardAPI": {"items": items}}]
    script = (
        "cd /v; cat c s podname; stat -Lc ' %a' podname; grep ^app= labels; cat cpu; echo; cat memory; echo; "
        "while ! grep -q new labels || ! grep -q new annotations; do sleep 0.1; done"
    )
    container = sh(script, volumeMounts=[mount("v", "/v")], resources={"limits": {"cpu": "1250m"}})
    await space.pod(pod("p", container, volumes=[{"name": "v", "projected": {"sources": sources}}]))
    await space.until("p", ready)
    await space.patch("p", {"metadata": {"labels": {"x": "new"}, "annotations": {"y": "new"}}})
    assert phase(await space.until("p", over)) == "Succeeded"
    expected = f'configsecretp 400\napp="p"\n1250\n{16 << 30}\n'
    assert await space.log("p") == expected


@behaviour(
    "[sig-node] Variable Expansion should allow substituting values in a volume subpath [Conformance]",
    "[sig-node] Variable Expansion should succeed in writing subpaths in container [Conformance]",
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod [Conformance]",
    "[sig-storage] Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath "
    "of existing file [Conformance]",
)
async def test_sub_path(space: Space) -> None:
    await space.create(CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {"key": "from the map"}})
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    mounts = [
        mount("v", "/own", subPathExpr="of/$(POD)"),
        mount("v", "/whole"),
        mount("cm", "/etc/hostname", subPath="key"),
    ]
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}]
    script = "echo hi > /own/f; cat /whole/of/p/f; cat /etc/hostname"
    out = await space.output(pod("p", sh(script, env=env, volumeMounts=mounts), volumes=volumes))
    assert out == "hi\nfrom the map"


@behaviour(
    "[sig-node] Variable Expansion should verify that a failing subpath expansion can be modified during the "
    "lifecycle of a container [Conformance] [Slow]",
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with absolute path "
    "[Conformance]",
    "[sig-node] Variable Expansion should fail substituting values in a volume subpath with backticks "
    "[Conformance]",
)
async def test_sub_path_fails(space: Space) -> None:
    env = [{"name": "SUB", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['sub']"}}}]
    volumes = [{"name": "v", "emptyDir": {}}]
    for name, value in (("absolute", "/tmp"), ("ticks", "../`hostname`"), ("later", "/absolute")):
        container = sh(FOREVER, env=env, volumeMounts=[mount("v", "/v", subPathExpr="$(SUB)")])
        body = pod(name, container, volumes=volumes, restartPolicy="Always")
        body["metadata"]["annotations"] = {"sub": value}
        await space.pod(body)
    for name in ("absolute", "ticks", "later"):
        await space.until(name, lambda p: waiting(p) == "CreateContainerConfigError")
    await space.patch("later", {"metadata": {"annotations": {"sub": "fine"}}})
    await space.until("later", ready)


@behaviour(
    "[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]",
    "[sig-auth] ServiceAccounts should mount projected service account token [Conformance]",
    "[sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]",
    "[sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]",
)
async def test_tokens(space: Space) -> None:
    await space.create(SERVICE_ACCOUNTS, {"metadata": {"name": "own"}})
    token = {"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}}
    volumes = [{"name": "v", "projected": {"sources": [token]}}]
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f"cat {place}/token; echo; cat {place}/namespace; echo; head -1 {place}/ca.crt; cat /v/t; echo"
    container = sh(script, volumeMounts=[mount("v", "/v")])
    out = await space.output(pod("p", container, volumes=volumes, serviceAccountName="own"))
    own, namespace, certificate, projected = out.splitlines()
    assert namespace == space.name
    assert certificate == "-----BEGIN CERTIFICATE-----"
    answer = await space.kube.create(TOKEN_REVIEWS, {"metadata": {}, "spec": {"token": own}})
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{space.name}:own"
    assert answer["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    middle = projected.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    assert claims["aud"] == ["vault"]
    assert claims["exp"] - claims["iat"] == 600
    opted = pod("q", f"test -e {place} || echo none", automountServiceAccountToken=False)
    assert await space.output(opted) == "none\n"


@behaviour(
    "[sig-auth] ServiceAccounts should set ownership and permission when RunAsUser or FsGroup is present "
    "[LinuxOnly] [NodeConformance]",
    differs="a token's file is readable by all in the pod (0644) unless a mode is given: nobody else sees the folder",
)
async def test_token_ownership(space: Space) -> None:
    place = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    look = f"stat -Lc '%a' {place}; test -r {place} && echo readable"
    user = pod("user", look, securityContext={"runAsUser": 1000})
    assert await space.output(user) == "644\nreadable\n"
    group = pod("group", look, securityContext={"runAsUser": 1000, "fsGroup": 10000})
    assert (await space.output(group)).endswith("readable\n")


@behaviour(
    "[sig-storage] HostPath should support r/w [NodeConformance]",
    "[sig-node] ImageVolume should succeed with pod and pull policy of Always [LinuxOnly] "
    "[MinimumKubeletVersion:1.35] [Conformance]",
    refused="Event `Refused`: the machine's folders are not the pods', and there are no images to mount",
)
async def test_refused_volumes(space: Space) -> None:
    kinds: dict[str, Object] = {
        "hostPath": {"path": "/etc"},
        "image": {"reference": "debian:12"},
        "nfs": {"server": "10.0.0.1", "path": "/"},
        "ephemeral": {"volumeClaimTemplate": {"spec": claim("x")["spec"]}},
    }
    for kind, given in kinds.items():
        await space.pod(pod(kind.lower(), FOREVER, volumes=[{"name": "v", kind: given}]))
    for kind in kinds:
        assert f".{kind} " in (await space.event(kind.lower(), "Refused"))["message"]
        assert phase(await space.get(kind.lower(), PODS)) == "Pending"
