"""What a container is told: its command, its variables, its names, and what it says at its end."""

from __future__ import annotations

from switchboard.kube import CONFIG_MAPS, PODS, SECRETS, SERVICES, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.conftest import GENERAL
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    IMAGE,
    mount,
    over,
    phase,
    pod,
    ready,
    sh,
    terminated,
    waiting,
)
from tests.infra.local.behaviours.scenario import behaviour, behaviours


def field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def resource(name: str, wanted: str, divisor: str = "1") -> Object:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": wanted, "divisor": divisor}}}


@behaviours(
    {
        "[sig-node] Containers should use the image defaults if command and args are blank [Conformance] "
        "[NodeConformance]": ({}, "entrypoint defaults"),
        "[sig-node] Containers should be able to override the image's default arguments (container cmd) "
        "[Conformance] [NodeConformance]": ({"args": ["override", "arguments"]}, "override arguments"),
        "[sig-node] Containers should be able to override the image's default command (container entrypoint) "
        "[Conformance] [NodeConformance]": ({"command": ["echo", "own"]}, "own"),
        "[sig-node] Containers should be able to override the image's default command and arguments "
        "[Conformance] [NodeConformance]": ({"command": ["echo", "own"], "args": ["args"]}, "own args"),
    }
)
async def test_command(space: Space, case: tuple[Object, str]) -> None:
    """With the image `envoyproxy/envoy`, whose entrypoint runs its arguments: `envoy …` where there are none."""
    given, expected = case
    if not given:
        image = {"name": "main", "image": "envoyproxy/envoy:v1.40.0"}
        await space.pod(pod("p", image))
        await space.until("p", over)
        assert "/etc/envoy/envoy.yaml" in await space.log("p"), "its default command is `envoy -c …`"
        return
    if list(given) == ["args"]:
        given = {"args": ["echo", *given["args"]]}
    image = "envoyproxy/envoy:v1.40.0" if "command" not in given else IMAGE
    assert await space.output(pod("p", {"name": "main", "image": image, **given})) == expected + "\n"


@behaviour(
    "[sig-node] Variable Expansion should allow composing env vars into new env vars [Conformance] "
    "[NodeConformance]",
    "[sig-node] Variable Expansion should allow substituting values in a container's command [Conformance] "
    "[NodeConformance]",
    "[sig-node] Variable Expansion should allow substituting values in a container's args [Conformance] "
    "[NodeConformance]",
)
async def test_expansion(space: Space) -> None:
    env = [
        {"name": "FOO", "value": "foo-value"},
        {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR);;$(NONE);;$$(FOO)"},
    ]
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["printf", "%s %s\n", "$(FOOBAR)"],
        "args": ["$(BAR)"],
    }
    out = await space.output(pod("p", {**container, "env": env}))
    assert out == "foo-value;;bar-value;;$(NONE);;$(FOO) bar-value\n"


@behaviour(
    "[sig-node] Variable Expansion allow almost all printable ASCII characters as environment variable names"
)
async def test_odd_names(space: Space) -> None:
    env = [{"name": "!\"#$%&'()*+,-./0-9:;<>?@A-Z", "value": "odd"}]
    assert "odd" in await space.output(
        pod("p", {"name": "main", "image": IMAGE, "command": ["env"], "env": env})
    )


@behaviour(
    "[sig-node] ConfigMap should be consumable via environment variable [Conformance] [NodeConformance]",
    "[sig-node] ConfigMap should be consumable via the environment [Conformance] [NodeConformance]",
    "[sig-node] ConfigMap should be consumable as environment variable names with various prefixes "
    "[Conformance]",
)
async def test_config_map(space: Space) -> None:
    await space.create(
        CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {"data-1": "value-1", "data_2": "value-2"}}
    )
    env = [
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "data-1"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": True}}},
    ]
    sources = [
        {"configMapRef": {"name": "cm"}},
        {"prefix": "p-", "configMapRef": {"name": "cm"}},
        {"configMapRef": {"name": "not-there", "optional": True}},
    ]
    out = await space.output(pod("p", sh("env", env=env, envFrom=sources)))
    have = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert (have["ONE"], have["data_2"]) == ("value-1", "value-2")
    assert "NONE" not in have
    raw = await space.output(
        pod("raw", {"name": "main", "image": IMAGE, "command": ["env"], "envFrom": sources})
    )
    assert "data-1=value-1" in raw
    assert "p-data-1=value-1" in raw


@behaviour(
    "[sig-node] Secrets should be consumable from pods in env vars [Conformance] [NodeConformance]",
    "[sig-node] Secrets should be consumable via the environment [Conformance] [NodeConformance]",
)
async def test_secret(space: Space) -> None:
    await space.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"data-1": "value-1"}})
    env = [{"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "data-1"}}}]
    container = {"name": "main", "image": IMAGE, "command": ["env"], "env": env}
    out = await space.output(pod("p", {**container, "envFrom": [{"secretRef": {"name": "s"}}]}))
    assert {"ONE=value-1", "data-1=value-1"} <= set(out.splitlines())


@behaviour(
    "[sig-node] Downward API should provide pod name, namespace and IP address as env vars [Conformance] "
    "[NodeConformance]",
    "[sig-node] Downward API should provide host IP as an env var [Conformance] [NodeConformance]",
    "[sig-node] Downward API should provide hostIPs as an env var [Conformance] [NodeConformance]",
    "[sig-node] Downward API should provide pod UID as env vars [Conformance] [NodeConformance]",
)
async def test_fields(space: Space) -> None:
    paths = {
        "NAME": "metadata.name",
        "SPACE": "metadata.namespace",
        "UID_": "metadata.uid",
        "IP": "status.podIP",
        "HOST": "status.hostIP",
        "HOSTS": "status.hostIPs",
        "NODE": "spec.nodeName",
        "APP": "metadata.labels['app']",
    }
    container = {"name": "main", "image": IMAGE, "command": ["env"]}
    out = await space.output(pod("p", {**container, "env": [field(k, v) for k, v in paths.items()]}))
    have = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    shown = await space.get("p")
    assert {key: have[key] for key in paths} == {
        "NAME": "p",
        "SPACE": space.name,
        "UID_": shown["metadata"]["uid"],
        "IP": shown["status"]["podIP"],
        "HOST": shown["status"]["hostIP"],
        "HOSTS": shown["status"]["hostIP"],
        "NODE": shown["spec"]["nodeName"],
        "APP": "p",
    }


@behaviour(
    "[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env "
    "vars [Conformance] [NodeConformance]",
    "[sig-node] Downward API should provide default limits.cpu/memory from node allocatable [Conformance] "
    "[NodeConformance]",
)
async def test_resources(space: Space) -> None:
    env = [
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory", "1Mi"),
        resource("CPU_REQUEST", "requests.cpu", "1m"),
        resource("MEMORY_REQUEST", "requests.memory", "1Mi"),
    ]
    print_all = 'echo "$CPU_LIMIT $MEMORY_LIMIT $CPU_REQUEST $MEMORY_REQUEST"'
    resources = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
    assert await space.output(pod("own", sh(print_all, env=env, resources=resources))) == "2 64 250 32\n"
    out = await space.output(pod("none", sh(print_all, env=env)))
    assert out.split()[:2] == ["8", str(16 * 1024)], "what the node has to give"


@behaviour(
    "[sig-node] Pods should contain environment variables for services [Conformance] [NodeConformance]",
)
async def test_service_variables(space: Space) -> None:
    await space.create(
        SERVICES,
        {
            "metadata": {"name": "foo-service"},
            "spec": {"selector": {"a": "b"}, "ports": [{"name": "web", "port": 8765, "targetPort": 8080}]},
        },
    )
    made = await space.get("foo-service", SERVICES)
    ip = made["spec"]["clusterIP"]
    await space.pod(pod("p", sh("env; sleep 1")))
    wanted = {
        f"FOO_SERVICE_SERVICE_HOST={ip}",
        "FOO_SERVICE_SERVICE_PORT=8765",
        "FOO_SERVICE_SERVICE_PORT_WEB=8765",
        f"FOO_SERVICE_PORT=tcp://{ip}:8765",
        f"FOO_SERVICE_PORT_8765_TCP=tcp://{ip}:8765",
        "FOO_SERVICE_PORT_8765_TCP_PROTO=tcp",
        "FOO_SERVICE_PORT_8765_TCP_PORT=8765",
        f"FOO_SERVICE_PORT_8765_TCP_ADDR={ip}",
    }
    await space.until("p", over)
    assert wanted <= set((await space.log("p")).splitlines())
    without = await space.output(pod("q", sh("env"), enableServiceLinks=False))
    assert "FOO_SERVICE" not in without
    assert "KUBERNETES_SERVICE_HOST" in without


@behaviour(
    "[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file [Conformance] "
    "[NodeConformance]",
    "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts "
    "[Conformance] [NodeConformance]",
)
async def test_hosts(space: Space) -> None:
    aliases = [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]
    own = sh("cat /etc/hosts", "own", volumeMounts=[mount("v", "/etc/hosts", subPath="hosts")])
    volumes = [{"name": "v", "emptyDir": {}}]
    init = sh("echo '# own' > /v/hosts", "init", volumeMounts=[mount("v", "/v")])
    await space.pod(
        pod("p", "cat /etc/hosts", own, initContainers=[init], hostAliases=aliases, volumes=volumes)
    )
    await space.until("p", over)
    managed = await space.log("p")
    assert managed.startswith("# Kubernetes-managed hosts file.")
    assert "123.45.67.89\tfoo bar" in managed
    assert await space.log("p", "own") == "# own\n"


@behaviour(
    "[sig-node] Hostname of Pod a pod without subdomain field does not have FQDN [NodeConformance]",
    "[sig-node] Hostname of Pod a pod with subdomain field has FQDN, hostname is shortname [NodeConformance]",
    "[sig-node] Hostname of Pod a pod with subdomain field has FQDN, when setHostnameAsFQDN is set to true, "
    "the FQDN is set as hostname [NodeConformance]",
    "[sig-node] Hostname of Pod a pod without FQDN is not affected by SetHostnameAsFQDN field "
    "[NodeConformance]",
)
async def test_hostname(space: Space) -> None:
    names = "hostname; hostname -f"
    full = f"in.sub.{space.name}.svc.cluster.local"
    assert await space.output(pod("plain", names)) == "plain\nplain\n"
    assert await space.output(pod("none", names, setHostnameAsFQDN=True)) == "none\nnone\n"
    assert await space.output(pod("short", names, hostname="in", subdomain="sub")) == f"in\n{full}\n"
    asked = pod("full", names, hostname="in", subdomain="sub", setHostnameAsFQDN=True)
    assert await space.output(asked) == f"{full}\n{full}\n"


@behaviour(
    "[sig-network] DNS should provide DNS for services [Conformance]",
    "[sig-network] DNS should provide DNS for pods for Subdomain [Conformance]",
    "[sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly] [Conformance]",
    differs="names come from /etc/hosts, kept current, not from a DNS server: no SRV records, and a headless "
    "Service's own name has one address",
)
async def test_names(space: Space) -> None:
    await space.create(SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    headless = {"clusterIP": "None", "selector": {"app": "member"}, "ports": [{"port": 80}]}
    await space.create(SERVICES, {"metadata": {"name": "group"}, "spec": headless})
    await space.pod(pod("member", FOREVER, labels={"app": "member"}, hostname="one", subdomain="group"))
    member = await space.until("member", ready)
    web = (await space.get("web", SERVICES))["spec"]["clusterIP"]
    wanted = {
        "web": web,
        f"web.{space.name}": web,
        f"web.{space.name}.svc": web,
        f"web.{space.name}.svc.cluster.local": web,
        f"one.group.{space.name}.svc.cluster.local": member["status"]["podIP"],
        "one.group": member["status"]["podIP"],
        "group": member["status"]["podIP"],
    }
    script = "".join(
        f"while ! getent ahostsv4 {name} >/dev/null; do sleep 0.1; done; getent ahostsv4 {name} | head -1; "
        for name in wanted
    )
    found = [line.split()[0] for line in (await space.output(pod("asks", script))).splitlines()]
    assert found == list(wanted.values())


MESSAGES = (
    "[sig-node] Container Runtime blackbox test on terminated container should report termination message "
)


@behaviours(
    {
        MESSAGES + "if TerminationMessagePath is set [NodeConformance]": (
            "printf DONE > /dev/termination-log",
            {},
            "DONE",
        ),
        MESSAGES
        + (
            "if TerminationMessagePath is set as non-root user and at a non-default path [Conformance] "
            "[NodeConformance]"
        ): (
            "printf DONE > /dev/termination-custom-log",
            {"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}},
            "DONE",
        ),
        MESSAGES
        + (
            "from log output if TerminationMessagePolicy FallbackToLogsOnError is set [Conformance] "
            "[NodeConformance]"
        ): (
            "printf DONE; exit 1",
            {"terminationMessagePolicy": "FallbackToLogsOnError"},
            "DONE",
        ),
        MESSAGES
        + (
            "as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [Conformance] "
            "[NodeConformance]"
        ): ("printf DONE", {"terminationMessagePolicy": "FallbackToLogsOnError"}, None),
        MESSAGES
        + (
            "from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [Conformance] "
            "[NodeConformance]"
        ): (
            "echo no; printf OK > /dev/termination-log",
            {"terminationMessagePolicy": "FallbackToLogsOnError"},
            "OK",
        ),
    }
)
async def test_last_words(space: Space, case: tuple[str, Object, str | None]) -> None:
    script, given, expected = case
    await space.pod(pod("p", sh(script, **given)))
    assert terminated(await space.until("p", over)).get("message") == expected


@behaviour("[sig-node] ConfigMap should fail to create ConfigMap with empty key [Conformance]")
async def test_a_missing_key(space: Space) -> None:
    """And a pod that names a key which isn't there says so, and starts when it comes."""
    refusal = await space.refused(CONFIG_MAPS, {"metadata": {"name": "bad"}, "data": {"": "value"}})
    assert refusal.status == 422
    await space.create(CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {}})
    env = [{"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "one"}}}]
    await space.pod(pod("p", sh("echo $ONE", env=env)))
    await space.until("p", lambda p: waiting(p) == "CreateContainerConfigError")
    await space.patch("cm", {"data": {"one": "1"}}, CONFIG_MAPS)
    assert phase(await space.until("p", over)) == "Succeeded"


@behaviour(
    "[sig-node] Sysctls [LinuxOnly] should support sysctls [Environment:NotInUserNS] [Conformance] "
    "[NodeConformance]",
    "[sig-node] Sysctls [LinuxOnly] should reject invalid sysctls [Conformance] [NodeConformance]",
    refused="Event `Refused` for every one: they would be the machine's",
)
async def test_sysctls(space: Space) -> None:
    def asking(name: str) -> Object:
        return pod(
            "p", FOREVER, securityContext={"sysctls": [{"name": name, "value": "1"}]}, nodeName=GENERAL[0]
        )

    assert (await space.refused(PODS, asking("foo-"))).status == 422
    await space.pod(asking("kernel.shm_rmid_forced"))
    assert "kernel.shm_rmid_forced" in (await space.event("p", "Refused"))["message"]
