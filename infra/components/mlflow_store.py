"""Where MLflow keeps its data: SQLite and files on a volume, or PostgreSQL and an S3-compatible bucket.

With a volume there is one replica, as one pod at a time may open it. With a database there may be several, and a Job
brings the database to this MLflow's schema, and its users to what the stack says, before new servers come up; these
never see the list of users then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import pulumi
from pulumi_kubernetes.batch.v1 import Job, JobSpecArgs
from pulumi_kubernetes.core.v1 import (
    ConfigMap,
    EnvFromSourceArgs,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpecArgs,
    PersistentVolumeClaimVolumeSourceArgs,
    PodTemplateSpecArgs,
    Secret,
    SecretEnvSourceArgs,
    VolumeArgs,
    VolumeMountArgs,
    VolumeResourceRequirementsArgs,
)

from infra.components import _data, _pod
from infra.components.account import account
from infra.components.registry_users import ACCOUNTS
from infra.components.site import SiteNamespace
from infra.config import Artifacts, Database

VERIFIED_TLS = "verified-tls"
"""The plugin of `models.database_tls`, which is in the image."""

CA_FOLDER = "/etc/mlflow"
ACCOUNTS_FOLDER = "/etc/mlflow-accounts"
UPGRADE_S = 900
"""How long a migration may take; MLflow's own notes count minutes for databases of millions of runs."""


_ACCOUNTS_ENVIRONMENT = {"MLFLOW_ACCOUNTS_FILE": f"{ACCOUNTS_FOLDER}/{ACCOUNTS}"}
_ACCOUNTS_MOUNT = VolumeMountArgs(name="accounts", mount_path=ACCOUNTS_FOLDER, read_only=True)

_EXCEPTIONS = {"CKV_K8S_35": "MLflow takes the address of its database, password included, from there only"}
"""From checkov's checks, which are on the object for whoever looks at it there."""


@dataclass(frozen=True)
class Store:
    """What a container needs to use a store, and what must be there before a server starts."""

    arguments: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    env_from: list[EnvFromSourceArgs] = field(default_factory=list)
    volumes: list[VolumeArgs] = field(default_factory=list)
    mounts: list[VolumeMountArgs] = field(default_factory=list)
    after: list[pulumi.Resource] = field(default_factory=list)
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """From checkov's checks, of a workload that uses it."""


def on_volume(
    namespace: SiteNamespace,
    parent: pulumi.Resource,
    *,
    match: Mapping[str, str],
    data: _data.Data,
    accounts: pulumi.Input[str],
    size: str,
    storage_class: str | None,
) -> Store:
    """A claim of `size`; `data` is what the store holds, `accounts` the Secret with the list of users."""
    claim = PersistentVolumeClaim(
        "mlflow-store",
        metadata=_data.meta(namespace, "mlflow-store", match, data),
        spec=PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=storage_class,
            resources=VolumeResourceRequirementsArgs(requests={"storage": size}),
        ),
        opts=namespace.child(parent),
    )
    source = PersistentVolumeClaimVolumeSourceArgs(claim_name=claim.metadata.name)
    return Store(
        arguments=[
            "--backend-store-uri=sqlite:////data/mlflow.db",
            "--artifacts-destination=/data/artifacts",
        ],
        env={"MLFLOW_ACCOUNTS_DATABASE_URI": "sqlite:////data/accounts.db", **_ACCOUNTS_ENVIRONMENT},
        volumes=[
            VolumeArgs(name="store", persistent_volume_claim=source),
            _pod.secret_volume("accounts", accounts),
        ],
        mounts=[VolumeMountArgs(name="store", mount_path="/data"), _ACCOUNTS_MOUNT],
    )


def in_database(
    namespace: SiteNamespace,
    parent: pulumi.Resource,
    *,
    image: str,
    data: _data.Data,
    accounts: pulumi.Input[str],
    database: Database,
    artifacts: Artifacts,
    secrets: Mapping[str, pulumi.Input[str]],
) -> Store:
    """A Secret with the credentials, which are in no manifest of a workload, and the Job that migrates and makes the
    users of the Secret `accounts`."""
    match = _pod.names("mlflow-upgrade", "registry")
    password = pulumi.Output.secret(secrets["mlflowDatabasePassword"])
    credentials = Secret(
        "mlflow-store",
        # Without a name of its own: a changed credential is a new Secret, so that the servers start anew with it.
        metadata=_data.meta(namespace, None, match, data),
        type="Opaque",
        string_data={
            "MLFLOW_BACKEND_STORE_URI": password.apply(lambda value: backend_uri(database, value)),
            "AWS_ACCESS_KEY_ID": pulumi.Output.secret(secrets["mlflowArtifactsAccessKey"]),
            "AWS_SECRET_ACCESS_KEY": pulumi.Output.secret(secrets["mlflowArtifactsSecretKey"]),
        },
        opts=namespace.child(parent),
    )
    store = Store(
        arguments=[f"--artifacts-destination=s3://{artifacts.bucket}"],
        env={
            "MLFLOW_S3_ENDPOINT_URL": artifacts.endpoint,
            "AWS_DEFAULT_REGION": artifacts.region,
            # Keys are given: nothing is to be looked for at a cloud's metadata address.
            "AWS_EC2_METADATA_DISABLED": "true",
            # By default a newer SDK wants checksums that many S3-compatible stores don't know.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        },
        env_from=[EnvFromSourceArgs(secret_ref=SecretEnvSourceArgs(name=credentials.metadata.name))],
        exceptions=_EXCEPTIONS,
    )
    if database.ca_certificate is not None:
        authority = ConfigMap(
            "mlflow-database-ca",
            metadata=_data.meta(namespace, None, match, _data.INTERNAL),
            data={"ca.crt": database.ca_certificate},
            opts=namespace.child(parent),
        )
        store.volumes.append(_pod.config_volume("database-ca", authority.metadata.name))
        store.mounts.append(VolumeMountArgs(name="database-ca", mount_path=CA_FOLDER, read_only=True))
    store.after.append(
        _upgrade(namespace, parent, store, image=image, accounts=accounts, match=match, data=data)
    )
    return store


def backend_uri(database: Database, password: str) -> str:
    """MLflow's URL of the database, with its password: only TLS with a certificate that is checked will do."""
    ca = f"&ca_file={CA_FOLDER}/ca.crt" if database.ca_certificate is not None else ""
    login = f"{quote(database.user, safe='')}:{quote(password, safe='')}"
    return f"postgresql+pg8000://{login}@{database.host}:{database.port}/{database.name}?plugin={VERIFIED_TLS}{ca}"


def _upgrade(
    namespace: SiteNamespace,
    parent: pulumi.Resource,
    store: Store,
    *,
    image: str,
    accounts: pulumi.Input[str],
    match: Mapping[str, str],
    data: _data.Data,
) -> Job:
    """Another image, or another list of users, makes another Job, as a Job's pods can't be changed."""
    return Job(
        "mlflow-upgrade",
        metadata=_data.workload_meta(namespace, "mlflow-upgrade", match, data, checkov=_EXCEPTIONS),
        spec=JobSpecArgs(
            backoff_limit=3,
            active_deadline_seconds=UPGRADE_S,
            template=PodTemplateSpecArgs(
                metadata=_data.pod_meta(namespace, match, data),
                spec=_pod.pod(
                    account(namespace, "mlflow-upgrade", "registry", parent=parent),
                    [
                        _pod.container(
                            "upgrade",
                            image,
                            command=["python", "-m", "models.database"],
                            env={
                                "HOME": "/tmp",
                                "MLFLOW_DISABLE_TELEMETRY": "true",
                                **store.env,
                                **_ACCOUNTS_ENVIRONMENT,
                            },
                            env_from=store.env_from,
                            resources=_pod.resources("250m", "256Mi", "1Gi", scratch="256Mi"),
                            mounts=[
                                *store.mounts,
                                _ACCOUNTS_MOUNT,
                                VolumeMountArgs(name="tmp", mount_path="/tmp"),
                            ],
                        )
                    ],
                    volumes=[
                        *store.volumes,
                        _pod.secret_volume("accounts", accounts),
                        _pod.scratch("tmp", "256Mi"),
                    ],
                    restart_policy="Never",
                ),
            ),
        ),
        opts=pulumi.ResourceOptions.merge(
            namespace.child(parent),
            pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="20m", update="20m")),
        ),
    )
