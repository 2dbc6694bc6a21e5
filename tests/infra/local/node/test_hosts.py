"""Names in place of a DNS server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.local.node.hosts import entries, render, rewrite
from switchboard.kube import Object
from tests.infra.local.node.pods import pod


def service(name: str, namespace: str = "ns", **spec: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def member(name: str, ip: str, ready: bool = True, **spec: Any) -> Object:
    body = pod(name=name, **spec)
    body["status"] = {
        "podIP": ip,
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    return body


def lookup(text: str, name: str) -> str | None:
    """As the resolver does it: the first line that has the name."""
    for line in text.splitlines():
        address, *names = line.split()
        if name in names:
            return address
    return None


def test_services_by_all_their_names() -> None:
    names = entries(
        [service("web", clusterIP="127.9.0.5"), service("db", "other", clusterIP="127.9.0.6")], []
    )
    text = render(pod(name="p"), "127.1.1.1", names)
    for name in ("web", "web.ns", "web.ns.svc", "web.ns.svc.cluster.local"):
        assert lookup(text, name) == "127.9.0.5", name
    for name in ("db.other", "db.other.svc", "db.other.svc.cluster.local"):
        assert lookup(text, name) == "127.9.0.6", name
    assert lookup(text, "db") is None, "another namespace's Service has no short name"
    assert (lookup(text, "p"), lookup(text, "localhost")) == ("127.1.1.1", "127.0.0.1")


def test_external_names_are_followed() -> None:
    services = [
        service("a", type="ExternalName", externalName="b.ns.svc.cluster.local"),
        service("b", type="ExternalName", externalName="web.ns"),
        service("web", clusterIP="127.9.0.5"),
        service("ip", type="ExternalName", externalName="127.3.3.3"),
        service("far", type="ExternalName", externalName="example.org"),
        service("loop", type="ExternalName", externalName="loop.ns"),
    ]
    names = entries(services, [])
    assert [names.get(f"{name}.ns") for name in ("a", "b", "ip", "far", "loop")] == [
        "127.9.0.5",
        "127.9.0.5",
        "127.3.3.3",
        None,
        None,
    ]


def test_pods_of_a_headless_service() -> None:
    headless = service("sts", clusterIP="None", selector={"app": "a"})
    pods = [
        member("sts-1", "127.1.1.2", subdomain="sts", hostname="sts-1"),
        member("sts-0", "127.1.1.1", subdomain="sts", hostname="sts-0"),
        member("sts-2", "127.1.1.3", ready=False, subdomain="sts", hostname="sts-2"),
        member("loose", "127.1.1.4"),
    ]
    names = entries([headless], pods)
    assert names["sts-0.sts.ns.svc.cluster.local"] == "127.1.1.1"
    assert names["sts-1.sts.ns"] == "127.1.1.2"
    assert "sts-2.sts.ns" not in names, "not ready"
    assert "loose.sts.ns" not in names, "no subdomain"
    assert names["sts.ns"] in {"127.1.1.1", "127.1.1.2", "127.1.1.4"}
    headless["spec"]["publishNotReadyAddresses"] = True
    assert entries([headless], pods)["sts-2.sts.ns"] == "127.1.1.3"


def test_a_pod_knows_its_full_name_and_its_aliases() -> None:
    aliases = [{"ip": "127.7.7.7", "hostnames": ["one", "two"]}]
    body = pod(name="sts-0", subdomain="sts", hostAliases=aliases)
    text = render(body, "127.1.1.1", {})
    assert "127.1.1.1\tsts-0.sts.ns.svc.cluster.local sts-0\n" in text
    assert lookup(text, "two") == "127.7.7.7"


def test_rewriting_keeps_the_file_that_is_bound_into_containers(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    assert rewrite(path, "a long first text\n")
    inode = path.stat().st_ino
    assert rewrite(path, "short\n")
    assert not rewrite(path, "short\n"), "nothing to do"
    assert (path.read_text(), path.stat().st_ino) == ("short\n", inode)
    assert path.stat().st_mode & 0o777 == 0o644, "for the pod's user, whoever that is"
