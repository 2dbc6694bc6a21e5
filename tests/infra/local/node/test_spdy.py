"""SPDY's framing against an independent reading of the specification, whole and in pieces."""

from __future__ import annotations

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.node import spdy
from infra.local.node.spdy import Data, Framer, Opened, Ping, ProtocolError, Reset

HEADERS = {"streamtype": "data", "port": "8080", "requestid": "3"}


class Client:
    """What a client sends; its header blocks share one compression state."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=spdy.DICTIONARY)

    def open(self, stream: int, headers: dict[str, str], flags: int = 0) -> bytes:
        words = [word.encode() for item in headers.items() for word in item]
        text = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(w)) + w for w in words)
        block = self.deflate.compress(text) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        return control(1, struct.pack(">IIH", stream, 0, 0) + block, flags)


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def test_the_dictionary_is_the_specification_s() -> None:
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2  # as zlib names it, in every SPDY/3 header block


@given(st.lists(st.integers(1, 64), max_size=40))
def test_frames_in_pieces_of_any_size(cuts: list[int]) -> None:
    client = Client()
    raw = (
        client.open(1, {**HEADERS, "streamtype": "error"})
        + spdy.data(1, b"", fin=True)
        + control(4, struct.pack(">III", 1, 4, 100))  # settings: nothing to us
        + client.open(3, HEADERS, spdy.FIN)
        + spdy.data(3, b"hello")
        + spdy.ping(7)
        + spdy.reset(3, 5)
        + control(7, bytes(8))  # go away
    )
    framer, frames = Framer(), []
    for cut in [*cuts, len(raw)]:
        frames += list(framer.feed(raw[:cut]))
        raw = raw[cut:]
    assert frames == [
        Opened(1, {**HEADERS, "streamtype": "error"}, False),
        Data(1, b"", True),
        Opened(3, HEADERS, True),
        Data(3, b"hello", False),
        Ping(7),
        Reset(3),
    ]


def test_replies_can_be_read_one_after_the_other() -> None:
    framer, inflate = Framer(), zlib.decompressobj(zdict=spdy.DICTIONARY)
    for stream in (1, 3, 5):
        version, kind, size = struct.unpack(">HHI", (reply := framer.reply(stream))[:8])
        assert (version, kind, size) == (0x8003, 2, len(reply) - 8)
        assert struct.unpack(">I", reply[8:12]) == (stream,)
        assert inflate.decompress(reply[12:]) == bytes(4)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (control(1, bytes(10), version=2), "version 2"),
        (control(1, struct.pack(">IIH", 1, 0, 0) + b"garbage"), "can't be unpacked"),
        (control(6, b"\0"), "cut short"),
        (struct.pack(">II", 1, 0xFFFFFF), "a frame of 16,777,215 bytes"),
        (Client().open(1, {"a": "x" * 100_000}), "more than 65,536 bytes"),
    ],
)
def test_what_is_not_spdy_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(Framer().feed(raw))


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_protocol_error(raw: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(Framer().feed(raw))
