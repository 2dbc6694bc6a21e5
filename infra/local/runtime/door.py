"""The way into a running container: what goes between a shim (`commands`) and who asks it (`sessions`).

The door is a socket in the container's folder, for the folder's owner alone. A connection is one request: a packet in
marshal's form (`argv`, empty to join the container's own streams), with the descriptors that are to be used as
streams. Answers are packets that begin with a letter; the first two are sent by the command's own process, before it
becomes the program:

    !126 why   it can't be executed (126: not executable, 127: not there)
    t          with the master of the command's terminal
    =0 0       the command ended: its exit code, and 1 where the deadline ended it
    +          joined; with the descriptor of the container's stdin or terminal where it has one

`e` from the asker ends the container's stdin where that is for one asker only; closing the connection kills the
command. Loaded by the shim too, under `python -I -S`: standard library only, cheap imports only.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.

from __future__ import annotations

import _socket
import os
import sys

NAME = "door"
REQUEST_BYTES = 1 << 17

_BACKLOG = 128
_FD_BYTES = 4
_CONTROL_BYTES = _socket.CMSG_SPACE(3 * _FD_BYTES)
_RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
Socket = _socket.socket


def build(folder: str) -> Socket:
    """Listen in the folder; by way of its descriptor, since a socket's address holds 107 characters only."""
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        door.bind(f"/proc/self/fd/{at}/{NAME}")
    finally:
        os.umask(mask)
        os.close(at)
    door.listen(_BACKLOG)
    return door


def pair() -> tuple[Socket, Socket]:
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def as_socket(fd: int) -> Socket:
    return _socket.socket(fileno=fd)


def hand_over(connection: Socket, word: bytes, fd: int) -> None:
    """Send a descriptor along with a word."""
    connection.sendmsg([word], [(*_RIGHTS, fd.to_bytes(_FD_BYTES, sys.byteorder))])


def take_over(connection: Socket, size: int) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it."""
    data, control, _, _ = connection.recvmsg(size, _CONTROL_BYTES, _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, held in control:
        if (level, kind) == _RIGHTS:
            for at in range(0, len(held), _FD_BYTES):
                fds.append(int.from_bytes(held[at : at + _FD_BYTES], sys.byteorder))
    return data, fds
