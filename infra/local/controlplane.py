"""The control plane of an embedded site: the commands of etcd, kube-apiserver, kube-controller-manager and
kube-scheduler, and how to see that each is well.

Everything listens on the site's own loopback address, with TLS; etcd has an authority of its own. Service and pod
addresses are loopback addresses, which EndpointSlices refuse: the API server keeps no endpoints of its own and the
controllers for endpoints are off (Services are resolved from selectors and ready pods). Leader election is off,
since there is one of each. All functions here are pure; `infra.local.site` runs what they return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from infra.local.layout import API_PORT, CLUSTER_DOMAIN, SiteLayout
from infra.local.pki import SitePki
from infra.local.processes import Program

ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
CONTROLLER_MANAGER_PORT = 10257
SCHEDULER_PORT = 10259

SERVICE_ACCOUNT_ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"

_OFF_CONTROLLERS = (
    # They would write loopback addresses into EndpointSlices, which the API server refuses.
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    # What they serve isn't there: certificate requests, CSI volumes, devices, pod ranges from the cluster.
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "podcertificaterequest-cleaner-controller",
    "node-ipam-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "device-taint-eviction-controller",
    "storage-version-migrator-controller",
)

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLER_MANAGER, SCHEDULER = "kube-controller-manager", "kube-scheduler"
NAMES = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)


def programs(layout: SiteLayout, pki: SitePki, tools: Mapping[str, Path]) -> dict[str, Program]:
    """The four programs by name, in the order of their start; `tools` maps each to its executable."""
    ip = str(layout.control_plane_ip)
    made = {
        ETCD: (_etcd(layout, pki), ((ip, ETCD_PORT), (ip, ETCD_PEER_PORT)), ("etcd.crt", "etcd-ca.crt")),
        API_SERVER: (
            _api_server(layout, pki),
            ((ip, API_PORT),),
            (
                *("ca.crt", "apiserver.crt", "etcd-client.crt", "etcd-ca.crt", "service-account.pub"),
                *("apiserver-kubelet-client.crt", "front-proxy-ca.crt", "front-proxy-client.crt"),
            ),
        ),
        CONTROLLER_MANAGER: (
            _controller_manager(layout, pki),
            ((ip, CONTROLLER_MANAGER_PORT),),
            ("ca.crt", "controller-manager.crt", "controller-manager.kubeconfig", "service-account.pub"),
        ),
        SCHEDULER: (
            _scheduler(layout, pki),
            ((ip, SCHEDULER_PORT),),
            ("ca.crt", "scheduler.crt", "scheduler.kubeconfig"),
        ),
    }
    return {
        name: Program(
            name=name,
            argv=(str(tools[name]), *flags),
            env=_environment(name),
            cwd=layout.directory,
            log=layout.logs / f"{name}.log",
            record=layout.run / f"{name}.json",
            listens=listens,
            fingerprint=pki.digest(*files),
        )
        for name, (flags, listens, files) in made.items()
    }


def with_options(programs: Mapping[str, Program], name: str, *options: str) -> dict[str, Program]:
    """The programs, that called `name` with more options: of those given twice the last counts, or both in a list."""
    return {**programs, name: replace(programs[name], argv=(*programs[name].argv, *options))}


def _environment(name: str) -> dict[str, str]:
    # A smaller heap for a little more collecting: these are idle most of the time, and there are eight of them. Not so
    # the API server: at work it collected for a quarter of its time.
    collect = "100" if name == API_SERVER else "50"
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "GOGC": collect}


def _etcd(layout: SiteLayout, pki: SitePki) -> tuple[str, ...]:
    ip, own = layout.control_plane_ip, pki.pair("etcd")
    ca = layout.pki / "etcd-ca.crt"
    client, peer = f"https://{ip}:{ETCD_PORT}", f"https://{ip}:{ETCD_PEER_PORT}"
    return (
        f"--name={layout.name}",
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={layout.name}={peer}",
        f"--cert-file={own.cert}",
        f"--key-file={own.key}",
        f"--trusted-ca-file={ca}",
        "--client-cert-auth",
        f"--peer-cert-file={own.cert}",
        f"--peer-key-file={own.key}",
        f"--peer-trusted-ca-file={ca}",
        "--peer-client-cert-auth",
        "--log-level=warn",
        # A single member is its own leader at once, instead of waiting for others' votes for a second.
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--snapshot-count=5000",
    )


def _api_server(layout: SiteLayout, pki: SitePki) -> tuple[str, ...]:
    ip = layout.control_plane_ip
    serving, etcd, kubelet, front_proxy = (
        pki.pair(name)
        for name in ("apiserver", "etcd-client", "apiserver-kubelet-client", "front-proxy-client")
    )
    return (
        f"--bind-address={ip}",
        f"--advertise-address={ip}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={serving.cert}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={layout.ca_cert}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--etcd-servers=https://{ip}:{ETCD_PORT}",
        f"--etcd-cafile={layout.pki / 'etcd-ca.crt'}",
        f"--etcd-certfile={etcd.cert}",
        f"--etcd-keyfile={etcd.key}",
        f"--service-cluster-ip-range={layout.embedded.services}",
        "--endpoint-reconciler-type=none",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-signing-key-file={layout.pki / 'service-account.key'}",
        f"--service-account-key-file={layout.pki / 'service-account.pub'}",
        f"--kubelet-certificate-authority={layout.ca_cert}",
        f"--kubelet-client-certificate={kubelet.cert}",
        f"--kubelet-client-key={kubelet.key}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={layout.pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={front_proxy.cert}",
        f"--proxy-client-key-file={front_proxy.key}",
        "--profiling=false",
    )


def _controller_manager(layout: SiteLayout, pki: SitePki) -> tuple[str, ...]:
    config = pki.kubeconfig("controller-manager")
    return (
        *_serving(layout, pki, "controller-manager", CONTROLLER_MANAGER_PORT, config),
        f"--controllers={','.join(['*', *(f'-{name}' for name in _OFF_CONTROLLERS)])}",
        f"--root-ca-file={layout.ca_cert}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        "--use-service-account-credentials=true",
        # Each controller asks for its token first: at the default of 20 requests/s that alone takes seconds.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )


def _scheduler(layout: SiteLayout, pki: SitePki) -> tuple[str, ...]:
    return _serving(layout, pki, "scheduler", SCHEDULER_PORT, pki.kubeconfig("scheduler"))


def _serving(layout: SiteLayout, pki: SitePki, name: str, port: int, config: Path) -> tuple[str, ...]:
    pair = pki.pair(name)
    return (
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--client-ca-file={layout.ca_cert}",
        f"--bind-address={layout.control_plane_ip}",
        f"--secure-port={port}",
        f"--tls-cert-file={pair.cert}",
        f"--tls-private-key-file={pair.key}",
        "--leader-elect=false",
        "--profiling=false",
    )
