"""Security contexts: who a container is, what it may write, and what it can't be given here."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path

import pytest

from infra.local.node.agent import runtime_dir
from infra.local.runtime.cgroups import Placement
from infra.local.runtime.record import Folder
from switchboard.kube import PODS, Object
from tests.infra.local.behaviours.cluster import WAIT_S, Space
from tests.infra.local.behaviours.manifests import FOREVER, mount, phase, pod, ready, sh, status_of, waiting
from tests.infra.local.behaviours.scenario import behaviour, behaviours

WHO = "id -u; id -g"
CONTEXT = "[sig-node] Security Context "


@behaviours(
    {
        CONTEXT
        + (
            "When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] "
            "[Conformance] [NodeConformance]"
        ): ({}, {"runAsUser": 65534}, "65534 0"),
        CONTEXT + "When creating a container with runAsUser should run the container with uid 0 [LinuxOnly] "
        "[NodeConformance]": ({}, {"runAsUser": 0}, "0 0"),
        CONTEXT + "should support pod.Spec.SecurityContext.RunAsUser [LinuxOnly]": (
            {"runAsUser": 1001},
            {},
            "1001 0",
        ),
        CONTEXT + "should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup "
        "[LinuxOnly] [Conformance]": ({"runAsUser": 1001, "runAsGroup": 2002}, {}, "1001 2002"),
        CONTEXT + "should support container.SecurityContext.RunAsUser [LinuxOnly]": (
            {"runAsUser": 1001},
            {"runAsUser": 1002},
            "1002 0",
        ),
        CONTEXT
        + "should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup "
        "[LinuxOnly] [Conformance]": (
            {"runAsUser": 1001, "runAsGroup": 2001},
            {"runAsUser": 1002, "runAsGroup": 2002},
            "1002 2002",
        ),
        CONTEXT
        + (
            "When creating a container with runAsNonRoot should run with an explicit non-root user ID "
            "[LinuxOnly] [NodeConformance]"
        ): ({}, {"runAsNonRoot": True, "runAsUser": 1234}, "1234 0"),
    }
)
async def test_identity(space: Space, case: tuple[Object, Object, str]) -> None:
    outer, inner, expected = case
    out = await space.output(pod("p", sh(WHO, securityContext=inner), securityContext=outer))
    assert out.split() == expected.split()


@behaviour(CONTEXT + "should support pod.Spec.SecurityContext.SupplementalGroups [LinuxOnly]")
async def test_groups(space: Space) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 3000, "supplementalGroups": [1234, 5678], "fsGroup": 42}
    out = await space.output(pod("p", "id -G", securityContext=security))
    assert sorted(map(int, out.split())) == [42, 1234, 3000, 5678]


@behaviour(
    CONTEXT
    + (
        "When creating a container with runAsNonRoot should not run with an explicit root user ID "
        "[LinuxOnly] [NodeConformance]"
    ),
    CONTEXT
    + (
        "When creating a container with runAsNonRoot should not run without a specified user ID "
        "[NodeConformance]"
    ),
)
async def test_not_as_root(space: Space) -> None:
    contexts: dict[str, Object] = {
        "explicit": {"runAsNonRoot": True, "runAsUser": 0},
        "none": {"runAsNonRoot": True},
    }
    for name, security in contexts.items():
        await space.pod(pod(name, sh("true", securityContext=security)))
    for name in contexts:
        await space.until(name, lambda p: waiting(p) == "CreateContainerConfigError")
        assert "runAsNonRoot" in (await space.event(name, "Failed"))["message"]


@behaviour(
    CONTEXT
    + (
        "When creating a container with runAsNonRoot should run with an image specified user ID "
        "[NodeConformance]"
    ),
)
async def test_the_images_user(space: Space) -> None:
    image = "switchboard.dev/switchboard:0.1.0"
    assert (
        await space.output(pod("p", sh("id -u", image=image, securityContext={"runAsNonRoot": True})))
        == "10001\n"
    )


@behaviour(
    CONTEXT
    + "When creating a pod with readOnlyRootFilesystem should run the container with readonly rootfs when "
    "readOnlyRootFilesystem=true [LinuxOnly] [NodeConformance]",
    CONTEXT
    + (
        "When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when "
        "readOnlyRootFilesystem=false [Conformance] [NodeConformance]"
    ),
    "[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem "
    "[LinuxOnly] [Conformance] [NodeConformance]",
)
async def test_root_file_system(space: Space) -> None:
    write = "touch /file 2>/dev/null && echo written || echo not"
    closed = sh(write, securityContext={"readOnlyRootFilesystem": True})
    opened = sh(write, securityContext={"readOnlyRootFilesystem": False})
    assert await space.output(pod("closed", closed)) == "not\n"
    assert await space.output(pod("opened", opened)) == "written\n"


@behaviour(
    CONTEXT
    + (
        "When creating a pod with privileged should run the container as unprivileged when false [LinuxOnly] "
        "[Conformance] [NodeConformance]"
    )
)
async def test_unprivileged(space: Space) -> None:
    out = await space.output(
        pod("p", sh("mount -t tmpfs none /tmp 2>&1 || true; echo end", securityContext={"privileged": False}))
    )
    assert "denied" in out or "permission" in out.lower(), out


@behaviour(
    CONTEXT
    + (
        "when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when "
        "false [LinuxOnly] [Conformance] [NodeConformance]"
    )
)
async def test_no_escalation(space: Space) -> None:
    security = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    out = await space.output(
        pod("p", sh("grep -E 'NoNewPrivs|CapEff' /proc/self/status", securityContext=security))
    )
    assert out.split() == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


@behaviour(
    CONTEXT
    + "when creating containers with AllowPrivilegeEscalation should allow privilege escalation when true "
    "[LinuxOnly] [NodeConformance]",
    CONTEXT
    + "when creating containers with AllowPrivilegeEscalation should allow privilege escalation when not "
    "explicitly set and uid != 0 [LinuxOnly] [NodeConformance]",
    differs="no container may gain privileges, whatever is asked",
)
async def test_escalation(space: Space) -> None:
    security = {"runAsUser": 1000, "allowPrivilegeEscalation": True}
    out = await space.output(pod("p", sh("grep NoNewPrivs /proc/self/status", securityContext=security)))
    assert out.split() == ["NoNewPrivs:", "1"]


@behaviour(
    CONTEXT + "should support seccomp runtime/default [LinuxOnly]",
    CONTEXT + "should support seccomp unconfined on the container [LinuxOnly]",
    differs="`RuntimeDefault` is taken as given and not enforced; `Localhost` is refused",
)
async def test_seccomp(space: Space) -> None:
    for kind in ("RuntimeDefault", "Unconfined"):
        out = await space.output(
            pod(
                kind.lower(),
                sh("grep Seccomp: /proc/self/status", securityContext={"seccompProfile": {"type": kind}}),
            )
        )
        assert out.split() == ["Seccomp:", "0"]
    profile = {"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}
    await space.pod(pod("localhost", FOREVER, securityContext=profile))
    assert "seccompProfile" in (await space.event("localhost", "Refused"))["message"]


@behaviour(
    CONTEXT
    + ("When creating a pod with privileged should run the container as privileged when true [LinuxOnly]"),
    "[sig-network] HostPort validates that there is no conflict between pods with same hostPort but "
    "different hostIP and protocol [LinuxOnly] [Conformance]",
    "[sig-node] Downward API should provide host IP and pod IP as an env var if pod uses host network "
    "[LinuxOnly] [NodeConformance]",
    refused="Event `Refused` (by the API server already: `privileged`): it would give the pod the machine",
)
async def test_the_machine_is_not_given(space: Space) -> None:
    port = {"containerPort": 8080, "hostPort": 8080}
    refusal = await space.refused(PODS, pod("p", sh(FOREVER, securityContext={"privileged": True})))
    assert "disallowed by cluster policy" in refusal.message
    asking: dict[str, Object] = {
        "hostNetwork": pod("hostnetwork", FOREVER, hostNetwork=True),
        "hostPID": pod("hostpid", FOREVER, hostPID=True),
        "hostIPC": pod("hostipc", FOREVER, hostIPC=True),
        "hostPort": pod("hostport", sh(FOREVER, ports=[port])),
        "capabilities.add": pod(
            "capability", sh(FOREVER, securityContext={"capabilities": {"add": ["NET_ADMIN"]}})
        ),
        "shareProcessNamespace": pod("share", FOREVER, shareProcessNamespace=True),
        "hostUsers": pod("users", FOREVER, hostUsers=False),
        "dnsConfig": pod("dns", FOREVER, dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}),
        "seLinuxOptions": pod("selinux", FOREVER, securityContext={"seLinuxOptions": {"level": "s0"}}),
        "emptyDir.medium": pod(
            "pages",
            sh(FOREVER, resources={"limits": {"cpu": "10m", "memory": "16Mi"}}),
            volumes=[{"name": "v", "emptyDir": {"medium": "HugePages"}}],
        ),
        "restartPolicy": pod("own", sh(FOREVER, restartPolicy="Never"), restartPolicy="Always"),
    }
    for body in asking.values():
        await space.pod(body)
    for field, body in asking.items():
        name = body["metadata"]["name"]
        assert field in (await space.event(name, "Refused"))["message"]
        assert (
            phase(await space.until(name, lambda p: waiting(p) == "CreateContainerConfigError")) == "Pending"
        )
    await asyncio.gather(*(space.delete(body["metadata"]["name"]) for body in asking.values()))
    await space.until_all(lambda pods: not pods)


@behaviour(
    "[sig-node] Kubelet Cgroup Manager Pod containers On scheduling a Guaranteed Pod Pod containers should "
    "have been created under the cgroup-root [NodeConformance]"
)
async def test_limits_in_the_cgroup(space: Space) -> None:
    """A group of its own, below its node's and its pod's, with what the manifest allows; and the kernel holds it."""
    resources = {"limits": {"cpu": "100m", "memory": "64Mi"}}
    await space.pod(pod("p", sh("while :; do :; done", resources=resources)))
    made = await space.until("p", lambda p: phase(p) == "Running")
    group = control_group(space, made)
    for controller in ("cpu", "memory"):
        if controller not in group.directories:
            pytest.skip(f"no control group for {controller} here: {group.unenforced}")
    assert f"/{made['spec']['nodeName']}/{made['metadata']['uid']}/main" in group.directories["cpu"]
    cpu, memory = (Path(group.directories[controller]) for controller in ("cpu", "memory"))
    if (cpu / "cpu.max").exists():
        quota_us, period_us = (cpu / "cpu.max").read_text().split()
        most_bytes = (memory / "memory.max").read_text()
    else:
        quota_us, period_us = ((cpu / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        most_bytes = (memory / "memory.limit_in_bytes").read_text()
    assert (int(quota_us) / int(period_us), int(most_bytes)) == (0.1, 64 << 20)
    async with asyncio.timeout(WAIT_S):
        while (
            dict(line.split() for line in (cpu / "cpu.stat").read_text().splitlines())["nr_throttled"] == "0"
        ):
            await asyncio.sleep(0.05)
    await space.delete("p", grace_period_s=1)


def control_group(space: Space, made: Object) -> Placement:
    """Where the runtime put the pod's container `main`."""
    run = status_of(made)["containerID"].removeprefix("switchboard://")
    record = Folder(
        runtime_dir(space.cluster.plane.layout.node(made["spec"]["nodeName"])) / run
    ).read_record()
    assert record is not None
    return record.placement


@behaviour(
    "[sig-node] Pod InPlace Resize Container resize pod via the replace endpoint [MinimumKubeletVersion:1.34] "
    "[Conformance]",
    refused="by the API server; a sidecar's, before its pod's containers run: Event `Refused`. What starts later has "
    "the new resources",
)
async def test_resize(space: Space) -> None:
    def asking(cores: str) -> Object:
        return {"limits": {"cpu": cores}, "requests": {"cpu": cores}}

    await space.pod(pod("runs", sh(FOREVER, resources=asking("100m"))))
    runs = copy.deepcopy(await space.until("runs", lambda p: phase(p) == "Running"))
    runs["spec"]["containers"][0]["resources"] = asking("200m")
    del runs["metadata"]["resourceVersion"]  # its status may change meanwhile
    said = await space.kubectl("replace", "--subresource=resize", "-f", "-", stdin=json.dumps(runs), ok=False)
    assert "Pod running on node without support for resize" in said

    waits = "until test -e /v/go; do sleep 0.1; done"
    mounts = [mount("v", "/v")]
    inits = [
        sh(FOREVER, "side", restartPolicy="Always", resources=asking("100m"), volumeMounts=mounts),
        sh(waits, "first", volumeMounts=mounts),
    ]
    main = sh(FOREVER, resources=asking("100m"))
    await space.pod(pod("begins", main, initContainers=inits, volumes=[{"name": "v", "emptyDir": {}}]))
    begins = copy.deepcopy(await space.until("begins", lambda p: status_of(p, "first")["state"]["running"]))
    del begins["metadata"]["resourceVersion"]
    begins["spec"]["initContainers"][0]["resources"] = asking("200m")
    begins["spec"]["containers"][0]["resources"] = asking("200m")
    await space.kubectl("replace", "--subresource=resize", "-f", "-", stdin=json.dumps(begins))
    refused = await space.event("begins", "Refused")
    assert refused["involvedObject"]["fieldPath"] == "spec.initContainers{side}"
    await space.kubectl("exec", "begins", "-c", "side", "--", "touch", "/v/go")
    made = await space.until("begins", ready)
    group = control_group(space, made)
    if "cpu" in group.directories:
        cpu = Path(group.directories["cpu"])
        v2 = cpu / "cpu.max"
        quota = v2.read_text().split()[0] if v2.exists() else (cpu / "cpu.cfs_quota_us").read_text().strip()
        assert quota == "20000", "it began after the change"
