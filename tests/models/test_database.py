"""MLflow's database: its schema by the Job's program, and the TLS that pg8000 leaves unchecked.

With a real PostgreSQL and a real S3-compatible server it was tried by hand (infra/README.md).
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
import sqlalchemy.exc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from models import database, database_tls

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def test_an_empty_database_gets_the_schema_and_another_run_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv(database.VARIABLE, url)
    assert database.main() == 0
    tables = sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names()
    assert {"experiments", "model_versions", "alembic_version"} <= set(tables)
    assert database.main() == 0


@pytest.mark.parametrize(
    ("url", "word"),
    [(None, "is not set"), ("nonsense", "is not the URL of a database")],
    ids=["none", "nonsense"],
)
def test_without_a_url_it_says_so(
    url: str | None, word: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(database.VARIABLE, raising=False)
    if url is not None:
        monkeypatch.setenv(database.VARIABLE, url)
    assert database.main() == 1
    assert word in caplog.text


def test_a_database_of_a_newer_mlflow_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a rollback to an older image: there is no way back down."""
    url = f"sqlite:///{tmp_path}/mlflow.db"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(sqlalchemy.text("INSERT INTO alembic_version VALUES ('ffff00000000')"))
        connection.execute(sqlalchemy.text("CREATE TABLE experiments (experiment_id INTEGER)"))
    monkeypatch.setenv(database.VARIABLE, url)
    assert database.main() == 1
    last = caplog.records[-1].getMessage()
    assert "is of a newer MLflow than this one" in last and "ffff00000000" in last


def test_a_failure_names_the_database_and_not_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            database.VARIABLE, f"postgresql+pg8000://ml:hunter2@127.0.0.1:{unused.getsockname()[1]}/mlflow"
        )
        assert database.main() == 1
    last = caplog.records[-1].getMessage()
    assert "ml:***@127.0.0.1" in last
    assert "Can't create a connection" in last
    assert "hunter2" not in last


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that signed itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "database")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    return file


class Server:
    """Speaks PostgreSQL as far as the start of TLS, and remembers what came through it."""

    def __init__(self, certificate: Path | None) -> None:
        self._certificate = certificate
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.heard = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, contextlib.suppress(OSError):
            assert connection.recv(8) == SSL_REQUEST
            if self._certificate is None:
                connection.sendall(b"N")
                self.heard = connection.recv(100)
                return
            connection.sendall(b"S")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            with context.wrap_socket(connection, server_side=True) as secured:
                self.heard = secured.recv(100)

    def close(self) -> None:
        self._socket.close()


def _connect(server: Server, query: str) -> BaseException:
    """What became of it: no such server lets anyone in."""
    url = f"postgresql+pg8000://ml:hunter2@127.0.0.1:{server.port}/mlflow?plugin={database_tls.NAME}{query}"
    with pytest.raises((OSError, sqlalchemy.exc.SQLAlchemyError)) as caught:
        sqlalchemy.create_engine(url).connect()
    server.thread.join(120)
    return caught.value


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.close()


def test_a_server_without_tls_hears_nothing(servers: list[Server]) -> None:
    servers.append(server := Server(None))
    assert "Server refuses SSL" in str(_connect(server, ""))
    assert server.heard == b""


def test_a_certificate_of_nobody_known_is_refused(servers: list[Server], certificate: Path) -> None:
    servers.append(server := Server(certificate))
    assert "certificate verify failed" in str(_connect(server, ""))
    assert server.heard == b""


def test_with_its_ca_the_login_goes_through_tls(servers: list[Server], certificate: Path) -> None:
    servers.append(server := Server(certificate))
    _connect(server, f"&ca_file={certificate}")
    assert b"user\0ml\0" in server.heard
