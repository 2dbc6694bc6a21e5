"""A node cut off: its processes reach nobody but themselves, and their customers reach them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from infra.local import cutting
from switchboard.errors import SwitchboardError

OWN, CLUSTER = "127.41.9.1", "127.41.8.1"
"""Of a pod of the node, and of something of its cluster."""

CHILD = """
import socket, sys, threading
server = socket.create_server((sys.argv[1], 8080))
def serve():
    while True:
        connection, _ = server.accept()
        threading.Thread(target=lambda: connection.sendall(connection.recv(9)), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
kept = socket.create_connection((sys.argv[2], int(sys.argv[3])), 10)
def ask(connection):
    connection.settimeout(1.0)
    connection.sendall(b"x")
    return connection.recv(1) == b"x"
def tried(work):
    try:
        return "yes" if work() else "no"
    except OSError:
        return "no"
for _ in sys.stdin:
    own = tried(lambda: ask(socket.create_connection((sys.argv[1], 8080), 1.0)))
    new = tried(lambda: ask(socket.create_connection((sys.argv[2], int(sys.argv[3])), 1.0)))
    print(own, tried(lambda: ask(kept)), new, flush=True)
"""


@pytest.fixture
def cluster() -> Iterator[int]:
    """Something that answers whoever asks; its port."""
    server = socket.create_server((CLUSTER, 0))

    def answer(connection: socket.socket) -> None:
        with closing(connection), suppress(ConnectionResetError):
            while said := connection.recv(9):
                connection.sendall(said)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def node(cluster: int) -> Iterator[subprocess.Popen[str]]:
    """A node's only process: it serves customers, and asks itself and its cluster when it is told to."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, OWN, CLUSTER, str(cluster)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def reached(node: subprocess.Popen[str]) -> list[str]:
    """Whether it reaches itself, its cluster by the connection that it has, and by a new one."""
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write("\n")
    node.stdin.flush()
    return node.stdout.readline().split()


def customer() -> bool:
    with socket.create_connection((OWN, cutting.CUSTOMERS_PORT), 10) as connection:
        connection.settimeout(10)
        connection.sendall(b"y")
        return connection.recv(1) == b"y"


def test_it_reaches_itself_and_nobody_else_until_the_end(node: subprocess.Popen[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes root")
    assert reached(node) == ["yes", "yes", "yes"]
    with ExitStack() as stack:
        try:
            stack.enter_context(cutting.cut("edge-1", [node.pid], [OWN]))
        except SwitchboardError as error:
            if "can't be cut off here" in str(error):
                pytest.skip(str(error))
            raise
        assert reached(node) == ["yes", "no", "no"]
        assert customer()
    assert reached(node)[2] == "yes"
    with pytest.raises(RuntimeError, match="something else"), cutting.cut("edge-1", [node.pid], [OWN]):
        raise RuntimeError("something else")
    assert reached(node)[2] == "yes"


def test_what_the_packet_filter_is_told() -> None:
    text = cutting.rules("switchboard_cut_0001", 0x5B0001, ["127.22.3.2", "127.22.0.13"])
    assert "meta cgroup != 0x5b0001 accept" in text
    assert "ip daddr { 127.22.0.13, 127.22.3.2 } accept" in text
    assert "ip saddr { 127.22.0.13, 127.22.3.2 } tcp sport 8080 accept" in text
    assert text.rstrip().endswith("drop\n  }\n}")
