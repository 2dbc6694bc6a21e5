"""MLflow and who trains for it: on a volume, or in a database and a bucket with credentials in a Secret only."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import config
from infra.components.champion import Champion, ChampionArgs
from infra.components.mlflow import Mlflow, MlflowArgs
from infra.components.mlflow_store import VERIFIED_TLS, backend_uri
from infra.components.site import SiteNamespace
from models import database_tls
from switchboard import labels
from tests.infra.certificates import self_signed
from tests.infra.components.building import ADDRESS, Built, build

SIGNATURE_KEY, SECRET_SIGNATURE = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi marks a secret on its wire."""

Object = dict[str, Any]
PASSWORD = "p@ss/w:rd%?"
SECRETS = {
    "mlflowDatabasePassword": PASSWORD,
    "mlflowArtifactsAccessKey": "AK-1",
    "mlflowArtifactsSecretKey": "SK-1",
}
DATABASE = {"host": "db.bank.example", "user": "ml"}
BUCKET = {"endpoint": "https://s3.bank.example", "bucket": "models", "region": "cn-shanghai"}


def mlflow(**store: Any) -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        chosen = config.MlflowStore.model_validate(store)
        secrets = SECRETS if chosen.database is not None else {}
        return {
            "url": Mlflow(namespace, MlflowArgs("ml:1", chosen, "mlflow-accounts-1", "fast", secrets)).url
        }

    return build("private", make)


def in_database(**database: Any) -> Built:
    return mlflow(replicas=2, database={**DATABASE, **database}, artifacts=BUCKET)


def container(built: Built, kind: str, name: str) -> Object:
    (found,) = built.objects[kind, name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environ(found: Object) -> dict[str, str]:
    return {item["name"]: item["value"] for item in found["env"] if "value" in item}


def test_on_a_volume_it_is_one_replica_that_goes_before_the_next_comes() -> None:
    built = mlflow(storage="7Gi")
    spec = built.objects["Deployment", "mlflow"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    claim = built.objects["PersistentVolumeClaim", "mlflow-store"]["spec"]
    assert claim["resources"]["requests"] == {"storage": "7Gi"}
    assert claim["storageClassName"] == "fast"
    arguments = container(built, "Deployment", "mlflow")["args"]
    assert "--backend-store-uri=sqlite:////data/mlflow.db" in arguments
    assert built.outputs == {"url": f"http://{ADDRESS}:5000"}
    assert {"Secret", "Job", "PodDisruptionBudget", "ConfigMap"} & set(built.kinds()) == set()


def test_it_answers_to_its_own_names_only() -> None:
    arguments = container(mlflow(), "Deployment", "mlflow")["args"]
    (allowed,) = [item.split("=", 1)[1] for item in arguments if item.startswith("--allowed-hosts=")]
    assert "*" not in allowed
    assert {f"{ADDRESS}:5000", "mlflow:5000", "$(POD_IP):5000"} < set(allowed.split(","))


def test_with_a_database_it_has_replicas_that_are_replaced_one_by_one() -> None:
    built = in_database()
    spec = built.objects["Deployment", "mlflow"]["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert ("PodDisruptionBudget", "mlflow") in built.objects
    assert "PersistentVolumeClaim" not in built.kinds()
    found = container(built, "Deployment", "mlflow")
    assert "--artifacts-destination=s3://models" in found["args"]
    assert not [item for item in found["args"] if "backend-store" in item]
    assert environ(found)["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.bank.example"


def test_credentials_are_in_the_secret_and_nowhere_else() -> None:
    built = in_database()
    (secret,) = [(name, obj) for (kind, name), obj in built.objects.items() if kind == "Secret"]
    name, obj = secret
    assert obj["stringData"][SIGNATURE_KEY] == SECRET_SIGNATURE, "Pulumi encrypts it in its state"
    data = obj["stringData"]["value"]
    assert data["AWS_ACCESS_KEY_ID"] == "AK-1"
    assert data["AWS_SECRET_ACCESS_KEY"] == "SK-1"
    assert unquote(urlsplit(data["MLFLOW_BACKEND_STORE_URI"]).password or "") == PASSWORD
    assert name != "mlflow-store", "a changed credential has to be another Secret, for the pods to start anew"
    for kind, workload in (("Deployment", "mlflow"), ("Job", "mlflow-upgrade")):
        assert container(built, kind, workload)["envFrom"] == [{"secretRef": {"name": name}}]
    rest = json.dumps([found for key, found in built.objects.items() if key != ("Secret", name)])
    assert [word for word in ("p%40ss", *SECRETS.values()) if word in rest] == []


def test_it_asks_who_you_are_and_the_list_of_users_is_where_it_is_applied() -> None:
    """With a volume by the server itself, as nobody else may open it; with a database by the Job alone."""
    for built, workloads in (
        (mlflow(), {"Deployment": True}),
        (in_database(), {"Deployment": False, "Job": True}),
    ):
        for kind, has in workloads.items():
            name = "mlflow" if kind == "Deployment" else "mlflow-upgrade"
            found = container(built, kind, name)
            assert ("MLFLOW_ACCOUNTS_FILE" in environ(found)) is has
            volumes = built.objects[kind, name]["spec"]["template"]["spec"]["volumes"]
            named = [one["secret"]["secretName"] for one in volumes if "secret" in one]
            assert named == (["mlflow-accounts-1"] if has else [])
        assert "--app-name=switchboard" in container(built, "Deployment", "mlflow")["args"]
    assert environ(container(mlflow(), "Deployment", "mlflow"))["MLFLOW_ACCOUNTS_DATABASE_URI"].startswith(
        "sqlite:"
    )


def test_the_database_is_migrated_once_before_the_servers() -> None:
    job = in_database().objects["Job", "mlflow-upgrade"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["template"]["spec"]["containers"][0]["command"] == ["python", "-m", "models.database"]


def test_a_database_s_own_ca_is_shown_to_all_who_connect() -> None:
    pem = self_signed()
    built = in_database(caCertificate=pem)
    (authority,) = [obj for (kind, _), obj in built.objects.items() if kind == "ConfigMap"]
    assert authority["data"] == {"ca.crt": pem}
    for kind, name in (("Deployment", "mlflow"), ("Job", "mlflow-upgrade")):
        mounts = {item["name"]: item["mountPath"] for item in container(built, kind, name)["volumeMounts"]}
        assert mounts["database-ca"] == "/etc/mlflow"
    uri = backend_uri(config.Database.model_validate({**DATABASE, "caCertificate": pem}), "x")
    assert "ca_file=/etc/mlflow/ca.crt" in uri


@given(st.text(min_size=1))
def test_any_password_survives_the_uri(password: str) -> None:
    parts = urlsplit(backend_uri(config.Database.model_validate(DATABASE), password))
    assert unquote(parts.password or "") == password
    assert (parts.hostname, parts.port, parts.path) == ("db.bank.example", 5432, "/mlflow")
    assert parts.query == f"plugin={VERIFIED_TLS}"


def test_the_uri_names_the_plugin_that_is_in_the_image() -> None:
    assert VERIFIED_TLS == database_tls.NAME


@pytest.mark.parametrize(("alias", "name"), [("champion", "chat-intent"), ("canary", "chat-intent-canary")])
def test_training_is_a_job_for_each_model_and_alias(alias: str, name: str) -> None:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        server = stack.model_servers[0].model_copy(update={"alias": alias})
        made = Champion(namespace, ChampionArgs(server, "train:2", "http://mlflow:5000", "mlflow-trainer"))
        return {"job": made.job.metadata.name}

    built = build("private", make)
    assert built.outputs == {"job": f"train-{name}"}
    found = container(built, "Job", f"train-{name}")
    assert found["image"] == "train:2"
    assert found["args"] == ["--model=chat-intent", f"--alias={alias}"]
    environment = environ(found)
    assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert environment["MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"] == "false"


def test_the_registry_s_data_stays_in_the_private_site_and_its_region() -> None:
    built = in_database()
    for kind, name in (("Deployment", "mlflow"), ("Job", "mlflow-upgrade")):
        obj = built.objects[kind, name]
        for meta in (obj["metadata"], obj["spec"]["template"]["metadata"]):
            assert meta["labels"][labels.DATA_CLASS] == "restricted"
            assert meta["labels"][labels.SITE_ROLE] == "private"
            assert meta["annotations"][labels.DATA_REGIONS] == "cn-shanghai"
