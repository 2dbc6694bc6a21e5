"""The server's side of SPDY/3.1's framing, as much of it as `kubectl port-forward` speaks inside its WebSocket.

Bytes in, frames out, and back: no sockets here. Streams are opened by the client alone; flow control, priorities and
pushes don't occur (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/). Header blocks share one
compression state for a connection's life, so each has to be unpacked, whether anybody wants it or not.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200~OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)


def _packed(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


DICTIONARY = b"".join(_packed(w.replace("~", " ").encode()) for w in _WORDS.split()) + _TAIL.encode()
"""What both sides' compression starts from (section 2.6.10.1)."""

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, HEADERS = 1, 2, 3, 6, 8
REFUSED_STREAM = 3
FIN = 1
MAX_FRAME_BYTES = 1 << 20
MAX_HEADERS_BYTES = 1 << 16

_VERSION = 3
_CONTROL = 1 << 31
_HEAD = struct.Struct(">II")


class ProtocolError(Exception):
    """The other side doesn't speak SPDY/3.1, or too much of it."""


@dataclass(frozen=True)
class Opened:
    """A new stream; `fin`: its client will send nothing on it."""

    stream: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True)
class Data:
    """Bytes of a stream; `fin`: the last."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True)
class Reset:
    """The client wants no more of a stream."""

    stream: int


@dataclass(frozen=True)
class Ping:
    """To be answered by the same."""

    id: int


Frame = Opened | Data | Reset | Ping


class Framer:
    """One connection's compression and half-read frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete by now (others, such as settings, mean nothing here).

        Raises:
            ProtocolError: the connection is of no use any more.
        """
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            first, second = _HEAD.unpack_from(self._buffer)
            flags, size = second >> 24, second & 0xFFFFFF
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {size:,} bytes")
            end = _HEAD.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            if not first & _CONTROL:
                yield Data(first, payload, bool(flags & FIN))
            elif (frame := self._control(first, flags, payload)) is not None:
                yield frame

    def _control(self, first: int, flags: int, payload: bytes) -> Frame | None:
        if (version := first >> 16 & 0x7FFF) != _VERSION:
            raise ProtocolError(f"version {version} of SPDY")
        kind = first & 0xFFFF
        try:
            if kind in (SYN_REPLY, HEADERS):
                self._headers(payload[4:])
            elif kind in (SYN_STREAM, RST_STREAM, PING):
                (number,) = struct.unpack_from(">I", payload)
                if kind == PING:
                    return Ping(number)
                stream = number & 0x7FFFFFFF
                return (
                    Reset(stream)
                    if kind == RST_STREAM
                    else Opened(stream, self._headers(payload[10:]), bool(flags & FIN))
                )
        except struct.error as error:
            raise ProtocolError(f"a frame of type {kind} that is cut short") from error
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflate.decompress(block, MAX_HEADERS_BYTES)
        except zlib.error as error:
            raise ProtocolError(f"headers that can't be unpacked: {error}") from error
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"headers of more than {MAX_HEADERS_BYTES:,} bytes")
        (count,) = struct.unpack_from(">I", text)
        at, words = 4, []
        for _ in range(2 * min(count, MAX_HEADERS_BYTES)):
            (size,) = struct.unpack_from(">I", text, at)
            word = text[at + 4 : at + 4 + size]
            if len(word) != size:
                raise ProtocolError("headers that are cut short")
            words.append(word.decode(errors="replace"))
            at += 4 + size
        return dict(zip(words[::2], words[1::2], strict=True))

    def reply(self, stream: int) -> bytes:
        """Accept a stream, with no headers."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return control(SYN_REPLY, struct.pack(">I", stream) + block)


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(_CONTROL | _VERSION << 16 | kind, flags << 24 | len(payload)) + payload


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    """A frame of data; at most 16 MiB."""
    return _HEAD.pack(stream, (FIN if fin else 0) << 24 | len(payload)) + payload


def reset(stream: int, status: int) -> bytes:
    return control(RST_STREAM, struct.pack(">II", stream, status))


def ping(id: int) -> bytes:
    return control(PING, struct.pack(">I", id))
