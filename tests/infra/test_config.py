"""The stack file: what is right is understood, what is wrong is one clear line that names it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra import config
from infra.config.servers import Size
from infra.local.layout import SiteLayout
from switchboard.api.scaling import Mode, Scaling
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.infra.certificates import self_signed

Values = dict[str, Any]


@pytest.fixture
def values() -> Values:
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    return {key.removeprefix("switchboard:"): value for key, value in document["config"].items()}


def test_the_local_stack_is_two_sites_and_two_edges() -> None:
    stack = config.load("local")
    assert stack.private.name == "private"
    assert [node.name for node in stack.private.embedded.nodes] == ["private-1", "private-2"]
    (public,) = stack.public
    assert [node.tier for node in public.embedded.nodes] == ["core", "core", "edge", "edge"]
    assert [edge.region for edge in public.edges] == ["cn-beijing", "cn-hongkong"]


def _set(path: str, value: Any) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        *parents, last = path.split("/")
        target: Any = values
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        target[int(last) if last.isdigit() else last] = value

    return change


def _scaling(**fields: Any) -> Callable[[Values], None]:
    """Of the local stack's chat, which has 2 to 6 replicas."""
    return lambda values: values["modelServers"][0]["scaling"].update(fields)


DAY = {"name": "day", "start": "08:00", "end": "18:30", "minReplicas": 3}
HOME = Path.home()
DATABASE = {"host": "db.bank.example"}
ARTIFACTS = {"endpoint": "https://s3.bank.example", "bucket": "mlflow", "region": "cn-shanghai"}

WRONG = [
    (_set("replicas", 3), ["unknown key switchboard:replicas", "modelServers"]),
    (_set("modelServers/0/replicas", "many"), ["switchboard:modelServers[0].replicas", "integer", "'many'"]),
    (
        _set("modelServers/0/replicas", 0),
        ["switchboard:modelServers[0].replicas", "greater than or equal to 1"],
    ),
    (_set("modelServers/0/replicas", True), ["switchboard:modelServers[0].replicas", "integer"]),
    (_set("modelServers/0/replicas", "3"), ["switchboard:modelServers[0].replicas", "integer"]),
    (
        _set("modelServers/0/name", "assistant"),
        ["switchboard:modelServers[0].name", "'assistant' is no kind of model server"],
    ),
    (_set("modelServers/0/resources/memoryLimit", "64Mi"), ["memoryLimit 64Mi is below memory 512Mi"]),
    (
        _set("sites/0/embedded/nodes", [{"name": "e", "tier": "edge", "region": "r"}]),
        ["at least one node must be of tier core"],
    ),
    (_set("modelServers/0/replicas", 2.0), ["modelServers[0].replicas", "integer"]),
    (_set("modelServers/0/edgeReplicas", False), ["modelServers[0].edgeReplicas", "integer"]),
    (_set("modelServers/0/maxConcurrency", "32"), ["modelServers[0].maxConcurrency", "integer"]),
    (_set("gatewayReplicas", True), ["switchboard:gatewayReplicas", "integer"]),
    (_set("modelServers/0/name", "gateway"), ["/v1/chat only"]),
    (_set("modelServers/0/model", "Chat_Intent"), ["modelServers[0].model", "'Chat_Intent'"]),
    (_set("modelServers/0/alias", "latest"), ["modelServers[0].alias", "reserves the alias 'latest'"]),
    (_set("modelServers/0/alias", "v3"), ["modelServers[0].alias", "reserves the alias 'v3'"]),
    (
        _set("modelServers", [{"name": "chat", "model": m, "dataRegions": ["r"]} for m in "ab"]),
        ["unique names"],
    ),
    (
        _set("modelServers/0/dataRegions", []),
        ["modelServers[0]: dataRegions is missing", "of class customer"],
    ),
    (_set("modelServers/0/dataClass", "secret"), ["modelServers[0].dataClass", "'restricted'"]),
    (_set("images/overrides", {"chats": "x"}), ["images.overrides names 'chats'", "gateway", "chat"]),
    (_set("images/envoy", "envoy latest"), ["images.envoy", "'envoy latest'"]),
    (_set("domain", "Bank.example/x"), ["switchboard:domain", "'Bank.example/x'"]),
    (_set("mlflow", {"replicas": 2}), ["switchboard:mlflow: 2 replicas need `database` and `artifacts`"]),
    (_set("mlflow", {"database": DATABASE}), ["`database` and `artifacts` come together"]),
    (
        _set("mlflow", {"database": DATABASE, "artifacts": ARTIFACTS, "storage": "1Gi"}),
        ["with a database there is none"],
    ),
    (
        _set("mlflow", {"database": DATABASE, "artifacts": {**ARTIFACTS, "endpoint": "https://a:b@s3"}}),
        ["mlflow.artifacts.endpoint"],
    ),
    (_set("sites/0/cluster", {"context": "c", "id": "x"}), ["sites[0].cluster.id", "'x'"]),
    (_set("secrets_set", []), ["unknown key switchboard:secrets_set"]),
    (_set("modelServers/0/resources", {"memory": "2Gi"}), ["memoryLimit 1Gi is below memory 2Gi"]),
    (_set("modelServers/0/resources", {"cpu": "1", "cpuLimit": "999m"}), ["cpuLimit 999m is below cpu 1"]),
    (_set("modelServers/0/scaling", {"minReplicas": 2}), ["modelServers[0].scaling.maxReplicas", "required"]),
    (_scaling(minReplicas="2"), ["modelServers[0].scaling.minReplicas", "integer", "'2'"]),
    (_scaling(minReplicas=True), ["modelServers[0].scaling.minReplicas", "integer"]),
    (_scaling(maxReplicas=4.0), ["modelServers[0].scaling.maxReplicas", "integer"]),
    (_scaling(minReplicas=7), ["modelServers[0].scaling: minReplicas 7 is more than maxReplicas 6"]),
    (_scaling(mode="on"), ["modelServers[0].scaling.mode", "'active', 'shadow' or 'paused'", "'on'"]),
    (_scaling(colour="red"), ["modelServers[0].scaling.colour", "Extra inputs"]),
    (_scaling(up={"percent": 0}), ["modelServers[0].scaling.up.percent", "greater than or equal to 1"]),
    (_scaling(schedules=[{**DAY, "timeZone": "Asia/Sha"}]), ["schedules[0].timeZone", "is no time zone"]),
    (_scaling(schedules=[{**DAY, "end": 1110}]), ["schedules[0].end", "string", "1110"]),
    (_scaling(schedules=[DAY, DAY]), ["modelServers[0].scaling: two schedules have the name 'day'"]),
    (_set("modelServers/0/scaling", [6]), ["switchboard:modelServers[0].scaling", "dictionary"]),
    (_set("modelServers/0/scaling", 6), ["switchboard:modelServers[0].scaling", "dictionary", "6"]),
    (_set("modelServers/0/replicas", 7), ["modelServers[0]: replicas 7 is more than scaling.maxReplicas 6"]),
    (_set("modelServers/0/replicas", 1), ["replicas 1 is less than scaling.minReplicas 2", "begins"]),
    (
        _set("modelServers/0/edgeScaling", {"minReplicas": 2, "maxReplicas": 3}),
        ["modelServers[0]: edgeReplicas 1 is less than edgeScaling.minReplicas 2"],
    ),
    (
        _set("modelServers/0/edgeScaling", {"minReplicas": 0, "maxReplicas": 3}),
        ["modelServers[0]: edgeScaling: minReplicas 0 is for the core"],
    ),
    (_set("modelServers/0/edgeScaling", {"maxReplicas": 0}), ["modelServers[0].edgeScaling.maxReplicas"]),
    (
        lambda values: values["modelServers"][0].update(edgeReplicas=0, edgeScaling={"maxReplicas": 2}),
        ["modelServers[0]: edgeReplicas 0 and edgeScaling"],
    ),
    (_set("modelServers/0/capacity", {"concurrency": "8"}), ["modelServers[0].capacity.concurrency", "'8'"]),
    (_set("modelServers/0/capacity", {"startSeconds": 0}), ["modelServers[0].capacity.startSeconds"]),
    (_set("modelServers/0/maxConcurrency", 8), ["maxConcurrency is short for capacity.concurrency"]),
    (_set("modelServers/0/availabilityException", "no"), ["modelServers[0].availabilityException"]),
    (_set("sharedStorageClass", "NFS!"), ["switchboard:sharedStorageClass", "'NFS!'"]),
    (_set("modelServers/0/colour", "red"), ["switchboard:modelServers[0].colour", "Extra inputs"]),
    (_set("sites/0/role", "secret"), ["switchboard:sites[0].role", "'private' or 'public'"]),
    (_set("sites/1/role", "private"), ["site public is private: only a public site has edges"]),
    (_set("sites/0/embedded/network", "10.0.0.0/16"), ["embedded.network", "127.0.0.0/8"]),
    (_set("sites/0/embedded/network", "127.96.0.0/16"), ["overlap"]),
    (_set("sites/0/embedded/services", "127.21.0.0/16"), ["overlap"]),
    (_set("sites/1/edges", [{"region": "mars"}]), ["no edge node in region mars"]),
    (_set("sites/1/name", "private"), ["site names must be unique"]),
    (_set("sites/0/cluster", {"context": "x"}), ["exactly one of `embedded` and `cluster`"]),
    (_set("sites/0/embedded/nodes/1/name", "private-1"), ["private-1 is there twice"]),
    (_set("sites/0/embedded/nodes/1/cpu", "lots"), ["nodes[1].cpu", "'lots'"]),
    (_set("images/envoy", 5), ["images.envoy", "string"]),
    (_set("modelServers/0/resources/cpuLimit", "0m"), ["resources.cpuLimit: 0m is nothing"]),
    (_set("modelServers/0/resources/memory", "0.0Gi"), ["resources.memory: 0.0Gi is nothing"]),
    (
        _set("networks", ["10.0.0.0/8", "0.0.0.0/0"]),
        ["switchboard:networks: 0.0.0.0/0 is no network of one bank"],
    ),
    (_set("networks", ["128.0.0.0/1"]), ["switchboard:networks: 128.0.0.0/1"]),
    (_set("storageClass", "Fa st"), ["switchboard:storageClass", "'Fa st'"]),
    (
        _set("mlflow", {"database": DATABASE, "artifacts": ARTIFACTS}),
        ["mlflow.database is for clusters", "passphrase"],
    ),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[" ".join(words)[:40] for _, words in WRONG])
def test_a_wrong_stack_is_one_line_that_names_it(
    values: Values, change: Callable[[Values], None], words: list[str]
) -> None:
    changed = copy.deepcopy(values)
    change(changed)
    with pytest.raises(SwitchboardError) as caught:
        config.parse(changed, "Pulumi.x.yaml")
    message = str(caught.value)
    assert message.startswith("Pulumi.x.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def clusters() -> Values:
    """Two clusters, and all that they may have."""
    document = yaml.safe_load((ROOT / "Pulumi.staging.yaml").read_text())
    return {key.removeprefix("switchboard:"): value for key, value in document["config"].items()}


UID = "7a1c9f8e-2b3d-4c5e-8f60-1a2b3c4d5e6f"
PEM = self_signed()
KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"

WRONG_CLUSTERS = [
    (
        _set("sites/1", {
            "name": "public", "role": "public", "region": "r",
            "embedded": {"network": "127.30.0.0/16", "services": "127.31.0.0/16", "nodes": [{"name": "n"}]},
        }),
        ["site public is embedded and site private is a cluster: a stack's sites are all of one kind"],
    ),
    (
        _set("sites/1/cluster", {"context": "bank-staging-private"}),
        ["sites private and public have the context bank-staging-private: each is a cluster of its own"],
    ),
    (
        _set("sites", [
            {"name": "a", "role": "private", "region": "r", "cluster": {"context": "x", "kubeconfig": "~/k"}},
            {"name": "b", "role": "public", "region": "r", "cluster": {"context": "x", "kubeconfig": str(HOME / "k")}},
        ]),
        ["sites a and b have the context x"],
    ),
    (
        _set("sites", [
            {"name": "a", "role": "private", "region": "r", "cluster": {"context": "x", "id": UID}},
            {"name": "b", "role": "public", "region": "r", "cluster": {"context": "y", "id": UID}},
        ]),
        [f"sites a and b have the id {UID}: each is a cluster of its own"],
    ),
    (_set("sites/0/cluster/kubeconfig", "k/config"), ["sites[0].cluster.kubeconfig: k/config is a relative path"]),
    (_set("sites/0/cluster/kubeconfig", "~nobody-here/k"), ["cluster.kubeconfig: ~nobody-here/k", "nobody here"]),
    (_set("mlflow/artifacts/endpoint", "https://s3.x:99999"), ["mlflow.artifacts.endpoint", "from 1 to 65535"]),
    (_set("mlflow/artifacts/endpoint", "https://s3.x:0"), ["mlflow.artifacts.endpoint", "from 1 to 65535"]),
    (_set("mlflow/artifacts/endpoint", "https://:443"), ["mlflow.artifacts.endpoint"]),
    (_set("mlflow/artifacts/endpoint", "https://s3.x:port"), ["mlflow.artifacts.endpoint"]),
    (_set("mlflow/database/caCertificate", PEM + KEY), ["mlflow.database.caCertificate: it holds a private key"]),
    (_set("mlflow/database/caCertificate", PEM + "pin: 1"), ["database.caCertificate: it holds more than cert"]),
    (_set("mlflow/database/caCertificate", "CERTIFICATE"), ["database.caCertificate: it is no certificate"]),
    (_set("mlflow/database/caCertificate", PEM.replace("M", "N", 1)), ["caCertificate: it is no certificate"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WRONG_CLUSTERS)
def test_so_is_a_wrong_stack_of_clusters(
    clusters: Values, change: Callable[[Values], None], words: list[str]
) -> None:
    test_a_wrong_stack_is_one_line_that_names_it(clusters, change, words)


def test_what_stacks_of_clusters_may_have(clusters: Values) -> None:
    clusters["sites"][0]["cluster"] = {"context": "x", "kubeconfig": "~/k"}
    clusters["sites"][1]["cluster"] = {"context": "x", "kubeconfig": "~/other", "id": UID}
    clusters["mlflow"]["database"]["caCertificate"] = PEM + PEM
    clusters["mlflow"]["artifacts"]["endpoint"] = "http://s3.bank.example:9000"
    assert config.parse(clusters, "x").mlflow.artifacts is not None


DATABASE_PASSWORD = "pulumi config set --secret switchboard:mlflowDatabasePassword"
SECRET_KEY = "pulumi config set --secret switchboard:mlflowArtifactsSecretKey"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("mlflow/database/password", "hunter2", DATABASE_PASSWORD),
        ("mlflow/password", "hunter2", DATABASE_PASSWORD),
        ("mlflow/artifacts/secretKey", "hunter2", SECRET_KEY),
        ("mlflow/artifacts/accessKey", "hunter2", "switchboard:mlflowArtifactsAccessKey"),
        ("mlflow/artifacts/endpoint", "https://AK:hunter2@s3.bank.example", "mlflow.artifacts.endpoint"),
        ("mlflow/database/host", "mlflow:hunter2@db.bank.example", "mlflow.database.host"),
        ("mlflow/database/port", "hunter2", "mlflow.database.port"),
        ("mlflow/database/caCertificate", KEY.replace("MIIB", "hunter2"), "a private key"),
        ("mlflow/database", "postgresql://mlflow:hunter2@db", "mlflow.database"),
        ("mlflow", "hunter2", "switchboard:mlflow"),
        ("images/registryPassword", "hunter2", "pulumi config set --secret switchboard:<key>"),
        ("sites/0/cluster/token", "hunter2", "sites[0].cluster.token"),
        ("domain", {"password": "hunter2"}, "switchboard:domain"),
    ],
)
def test_no_error_repeats_what_may_be_a_secret(clusters: Values, path: str, value: Any, told: str) -> None:
    _set(path, value)(clusters)
    with pytest.raises(SwitchboardError) as caught:
        config.parse(clusters, "Pulumi.x.yaml")
    message = str(caught.value)
    assert "hunter2" not in message
    assert told in message
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "config:\n  switchboard:domain: a\n  switchboard:domain: b",
            "key switchboard:domain is there twice (lines 2 ",
        ),
        ("config:\n  x: [{a: 1, b: 2, a: 3}]", "the key a is there twice (lines 2 and 2)"),
        ("config:\n  password: *hunter2", "is not YAML: found undefined alias '…' (line 2, column 13)"),
        ("config:\n  password: 'a' hunter2", "(line 2, column 17)"),
        ("config: [", "is not YAML: expected the node content, but found '<stream end>'"),
        ("name: x", "no `config:` section"),
        ("config: {other:key: 1}", "unknown key other:key"),
        ("config: {}", "switchboard:sites: Field required"),
    ],
)
def test_a_file_that_is_no_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_text(text)
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(path))
    with pytest.raises(SwitchboardError, match=r"Pulumi\.x\.yaml") as caught:
        config.load("x")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.mkdir()
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(path))
    with pytest.raises(SwitchboardError, match=r"can't read .*Pulumi\.x\.yaml: Is a directory"):
        config.load("x")


@pytest.mark.parametrize("value", ["hunter2", {"secure": "v1:x", "more": "hunter2"}, ["hunter2"], None])
def test_a_secret_in_clear_is_refused_and_not_repeated(values: Values, value: Any) -> None:
    with pytest.raises(SwitchboardError, match="mlflowDatabasePassword: a secret in clear") as caught:
        config.parse({**values, "mlflowDatabasePassword": value}, "x")
    assert "pulumi config set --secret switchboard:mlflowDatabasePassword" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_secrets_are_known_to_be_set_and_not_by_their_values(values: Values, clusters: Values) -> None:
    given = {**clusters, "mlflowDatabasePassword": {"secure": "v1:abc:def"}}
    stack = config.parse(given, "x")
    assert stack.secrets_set == {"mlflowDatabasePassword"}
    assert set(stack.secrets_needed) == set(config.SECRETS)
    assert "v1:abc" not in repr(stack)
    assert config.parse(values, "x").secrets_needed == ()
    on_volume = {**clusters, "mlflow": {"storage": "5Gi"}}
    assert config.parse(on_volume, "x").secrets_needed == ("mlflowUserKey",)


@pytest.mark.parametrize(
    ("people", "told"),
    [
        ([{"name": "li"}, {"name": "wu", "role": "release", "turn": 3}], None),
        ([{"name": "li"}, {"name": "li", "role": "trainer"}], "mlflowUsers has li twice"),
        ([{"name": "release"}], "is a user that every stack has"),
        ([{"name": "li", "role": "admin"}], "is no role for people"),
        ([{"name": "li", "role": "king"}], "mlflowUsers[0].role"),
        ([{"name": "Li"}], "mlflowUsers[0].name"),
        ([{"name": "li:x"}], "mlflowUsers[0].name"),
        ([{"name": "li", "turn": 0}], "mlflowUsers[0].turn"),
        ([{"name": "li", "password": "hunter2"}], "mlflowUsers[0].password"),
    ],
)
def test_people_who_use_mlflow(values: Values, people: list[Values], told: str | None) -> None:
    if told is None:
        found = config.parse({**values, "mlflowUsers": people}, "x").mlflow_users
        assert [(one.name, str(one.role), one.turn) for one in found] == [
            ("li", "reader", 1),
            ("wu", "release", 3),
        ]
        return
    with pytest.raises(SwitchboardError) as caught:
        config.parse({**values, "mlflowUsers": people}, "x")
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_part_has_the_image_of_its_own_or_that_of_the_rest(values: Values) -> None:
    values["images"]["overrides"] = {"chat": "bank/switchboard:2"}
    stack = config.parse(values, "x")
    assert stack.image("chat") == "bank/switchboard:2"
    assert {stack.image(part) for part in config.PARTS} == {values["images"]["switchboard"]}


FIXED = Scaling(min_replicas=2, max_replicas=2)
ONE = Scaling(min_replicas=1, max_replicas=1)
SIX = {"maxReplicas": 6}


@pytest.mark.parametrize(
    ("given", "core", "edge"),
    [
        ({}, Size(FIXED), Size(ONE)),
        ({"replicas": 2, "edgeReplicas": 1}, Size(FIXED), Size(ONE)),
        ({"edgeReplicas": 0}, Size(FIXED), None),
        ({"scaling": SIX}, Size(Scaling(max_replicas=6)), Size(ONE)),
        ({"scaling": SIX, "replicas": 3}, Size(Scaling(max_replicas=6), 3), Size(ONE)),
        (
            {"scaling": {**SIX, "minReplicas": 2, "mode": "paused"}, "replicas": 1},
            Size(Scaling(min_replicas=2, max_replicas=6, mode=Mode.PAUSED), 1),
            Size(ONE),
        ),
        ({"edgeScaling": {"maxReplicas": 2}}, Size(FIXED), Size(Scaling(max_replicas=2))),
        ({"edgeScaling": {"maxReplicas": 2}, "edgeReplicas": 2}, Size(FIXED), Size(Scaling(max_replicas=2), 2)),
    ],
)  # fmt: skip
def test_how_many_replicas(values: Values, given: Values, core: Size, edge: Size | None) -> None:
    server = {"name": "chat", "model": "chat-intent", "dataRegions": ["r"], **given}
    (found,) = config.parse({**values, "modelServers": [server]}, "x").model_servers
    assert (found.size("core"), found.size("edge"), found.on_edges) == (core, edge, edge is not None)


@pytest.mark.parametrize(
    ("given", "concurrency", "start_s"),
    [
        ({}, 32, 60),
        ({"maxConcurrency": 8}, 8, 60),
        ({"capacity": {"concurrency": 8}}, 8, 60),
        ({"maxConcurrency": 8, "capacity": {"startSeconds": 20}}, 8, 20),
    ],
)
def test_what_a_replica_takes(values: Values, given: Values, concurrency: int, start_s: int) -> None:
    server = {"name": "chat", "model": "chat-intent", "dataRegions": ["r"], **given}
    (found,) = config.parse({**values, "modelServers": [server]}, "x").model_servers
    assert (found.takes.concurrency, found.takes.start_seconds) == (concurrency, start_s)


@pytest.mark.parametrize("time", ["18:30", '"18:30"', "08:05"])
def test_a_time_of_day_is_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    """PyYAML by itself makes 1110 of 18:30, which Pulumi doesn't."""
    path = tmp_path / "Pulumi.x.yaml"
    text = (ROOT / "Pulumi.local.yaml").read_text()
    day = f"{{name: day, start: {time}, end: 23:59, minReplicas: 3}}"
    path.write_text(text.replace("maxReplicas: 6,", f"maxReplicas: 6, schedules: [{day}],"))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(path))
    (server,) = config.load("x").model_servers
    assert server.scaling is not None
    (schedule,) = server.scaling.schedules
    assert (schedule.start, schedule.end) == (time.strip('"'), "23:59")


def _public(name: str, number: int, regions: list[str]) -> Values:
    edges = [{"name": f"e-{region}", "tier": "edge", "region": region} for region in regions]
    return {
        "name": name,
        "role": "public",
        "region": "r",
        "embedded": {
            "network": f"127.{number}.0.0/16",
            "services": f"127.{number + 1}.0.0/16",
            "nodes": [{"name": "core"}, *edges],
        },
        "edges": [{"region": region} for region in regions],
    }


@pytest.mark.parametrize(
    ("sites", "word"),
    [
        ((_public("a", 40, ["x"]), _public("b", 42, ["x"])), "edge region x is in two sites"),
        ((_public("a", 40, ["b"]), _public("a-chat", 42, [])), None),
        ((_public("a", 40, ["gateway"]), _public("a-gateway", 42, [])), "two workloads .* a-gateway-gateway"),
    ],
)
def test_names_of_two_sites_do_not_collide(
    values: Values, sites: tuple[Values, ...], word: str | None
) -> None:
    changed = {**values, "sites": [values["sites"][0], *sites]}
    if word is None:
        assert len(config.parse(changed, "x").public) == 2
        return
    with pytest.raises(SwitchboardError, match=word):
        config.parse(changed, "x")


def test_a_file_that_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Pulumi.x.yaml"
    path.write_bytes(b"config: \xff")
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(path))
    with pytest.raises(SwitchboardError, match=r"Pulumi\.x\.yaml is not UTF-8: byte 0xff at position 8"):
        config.load("x")


def test_a_missing_stack_names_those_that_are_there() -> None:
    with pytest.raises(SwitchboardError, match=r"no stack 'nowhere'.*\n.*local"):
        config.load("nowhere")


@given(st.integers(1, 50))
def test_addresses_of_a_site_are_each_its_own(count: int) -> None:
    nodes = [{"name": f"n-{index}"} for index in range(count)]
    site = config.Site.model_validate(
        {
            "name": "s",
            "role": "private",
            "region": "r",
            "embedded": {"network": "127.77.0.0/16", "services": "127.78.0.0/16", "nodes": nodes},
        }
    )
    layout = SiteLayout(site, Path("/state"))
    single = [layout.control_plane_ip, layout.proxy_ip, *(node.ip for node in layout.nodes)]
    assert len(set(single)) == count + 2
    for node in layout.nodes:
        assert not any(address in node.pod_cidr for address in single)
        assert node.pod_cidr.subnet_of(site.embedded.network)
    assert len({node.pod_cidr for node in layout.nodes}) == count
