"""Addresses, checkpoints, tokens, logs, sockets, the node's own objects: the smaller parts of the agent."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config.sites import Node as NodeConfig
from infra.local import bootstrap_objects, pki
from infra.local.node import bind_watch, crilogs, provisioner, registration, server, tokens
from infra.local.node.checkpoint import Checkpoint, Loaded, ObjectCache, write_atomically
from infra.local.node.container_spec import parse_run_id, run_id
from infra.local.node.context import Context
from infra.local.node.ips import Addresses
from infra.local.node.records import Container, Ended, PodRecord, show_time
from switchboard.errors import SwitchboardError
from tests.infra.local.node.pods import container, pod

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_shared_names_agree() -> None:
    assert server.KUBELET_CLIENT == pki.KUBELET_CLIENT
    assert provisioner.PROVISIONER == bootstrap_objects.PROVISIONER


class TestAddresses:
    def test_one_each_and_the_same_again(self) -> None:
        addresses = Addresses(IPv4Network("127.1.1.0/24"))
        assert [addresses.take("a"), addresses.take("b"), addresses.take("a")] == [
            "127.1.1.1",
            "127.1.1.2",
            "127.1.1.1",
        ]

    def test_a_released_one_comes_last(self) -> None:
        addresses = Addresses(IPv4Network("127.1.1.0/29"))
        addresses.take("a")
        addresses.release("a")
        assert [addresses.take(owner) for owner in "bcdef"][-1] == "127.1.1.6"
        assert addresses.take("g") == "127.1.1.1"
        with pytest.raises(SwitchboardError, match="no free pod address: all 6"):
            addresses.take("h")

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
    def test_never_held_twice(self, steps: list[tuple[str, bool]]) -> None:
        addresses, held = Addresses(IPv4Network("127.1.1.0/28")), {}
        for owner, take in steps:
            if take:
                held[owner] = addresses.take(owner)
            else:
                addresses.release(owner)
                held.pop(owner, None)
            assert len(set(held.values())) == len(held)

    def test_a_restart_keeps_what_is_held(self) -> None:
        addresses = Addresses(IPv4Network("127.1.1.0/24"))
        addresses.hold("old", "127.1.1.1")
        assert addresses.take("new") == "127.1.1.2"
        assert addresses.take("old") == "127.1.1.1"


class TestCheckpoint:
    def test_pods_come_back(self, tmp_path: Path) -> None:
        checkpoint, body = Checkpoint(tmp_path / "pods"), pod(container("a"), init=[container("i")])
        checkpoint.make()
        record = PodRecord.new(body, NOW)
        record.ip = "127.1.1.1"
        record.containers["a"] = Container(
            name="a",
            kind="main",
            attempt=3,
            phase="exited",
            ended=Ended(run_id="r", exit_code=1, reason="Error", finished_at=NOW),
            busy=True,
            retry_at=5.0,
        )
        own = checkpoint.pod("uid-of-p")
        own.save_pod(body)
        own.save_record(record)
        ((seen, again),) = checkpoint.load().pods
        assert seen == body
        assert again.ip == "127.1.1.1"
        assert again.containers["a"].attempt == 3
        assert (again.containers["a"].busy, again.containers["a"].retry_at) == (False, 0.0), (
            "of that run only"
        )

    @pytest.mark.parametrize("broken", [None, "", "{", "[]", '{"started_at": 1}'])
    def test_a_broken_record_begins_anew(self, tmp_path: Path, broken: str | None) -> None:
        """A power cut may leave an empty file: the pod and its volumes must not be lost with it."""
        checkpoint = Checkpoint(tmp_path / "pods")
        checkpoint.make()
        own = checkpoint.pod("u")
        own.save_pod(pod() | {"status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z"}})
        if broken is not None:
            (own.path / "record.json").write_text(broken)
        ((_, record),) = checkpoint.load().pods
        assert set(record.containers) == {"main"}
        assert show_time(record.started_at) == "2026-01-02T03:04:05Z"
        assert record.outcome is None

    def test_a_pod_that_was_over_is_not_run_again_for_a_broken_record(self, tmp_path: Path) -> None:
        own = Checkpoint(tmp_path).pod("u")
        own.save_pod(pod() | {"status": {"phase": "Succeeded"}})
        loaded = own.load()
        assert loaded is not None and loaded[1].outcome == "Succeeded"

    @pytest.mark.parametrize("broken", ["", "{", "[]", "{}"])
    def test_a_broken_manifest_is_left_out(self, tmp_path: Path, broken: str) -> None:
        checkpoint = Checkpoint(tmp_path / "pods")
        checkpoint.make()
        own = checkpoint.pod("u")
        own.save_pod(pod())
        (own.path / "pod.json").write_text(broken)
        checkpoint.pod("v").make()
        assert checkpoint.load() == Loaded([], {})

    @pytest.mark.parametrize("name", ["pod.json", "record.json"])
    @pytest.mark.parametrize("unreadable", ["a folder", "/proc/self/mem"])
    def test_what_cannot_be_read_is_not_broken(self, tmp_path: Path, name: str, unreadable: str) -> None:
        """`/proc/self/mem` answers as a bad disk does: EIO."""
        checkpoint, body = Checkpoint(tmp_path / "pods"), pod()
        checkpoint.make()
        own = checkpoint.pod("u")
        own.save_pod(body)
        own.save_record(PodRecord.new(body, NOW))
        whole = (own.path / name).read_text()
        (own.path / name).unlink()
        if unreadable == "a folder":
            (own.path / name).mkdir()
        else:
            (own.path / name).symlink_to(unreadable)
        found = checkpoint.load()
        assert (found.pods, list(found.unread)) == ([], ["u"])
        (own.path / name).rmdir() if unreadable == "a folder" else (own.path / name).unlink()
        (own.path / name).write_text(whole)
        assert [seen for seen, _ in checkpoint.load().pods] == [body]

    def test_a_write_that_fails_leaves_the_old_file_and_no_other(self, tmp_path: Path) -> None:
        own = Checkpoint(tmp_path).pod("u")
        own.save_pod(pod())
        before = (own.path / "pod.json").read_text()
        with pytest.raises(UnicodeEncodeError):
            write_atomically(own.path / "pod.json", "half\ud800")
        assert (own.path / "pod.json").read_text() == before
        assert {path.name for path in own.path.iterdir()} == {"pod.json", "volumes", "logs", "messages"}

    def test_secrets_are_for_the_owner_alone(self, tmp_path: Path) -> None:
        cache = ObjectCache(tmp_path / "objects")
        cache.save("Secret.ns.s", {"a": 1})
        assert (tmp_path / "objects").stat().st_mode & 0o777 == 0o700
        assert next((tmp_path / "objects").iterdir()).stat().st_mode & 0o777 == 0o600
        assert cache.load("Secret.ns.s") == {"a": 1}
        cache.drop("Secret.ns.s")
        assert cache.load("Secret.ns.s") is None

    def test_logs_of_two_runs_are_kept(self, tmp_path: Path) -> None:
        own = Checkpoint(tmp_path).pod("u")
        for attempt in range(4):
            own.log("c", attempt).parent.mkdir(parents=True, exist_ok=True)
            own.log("c", attempt).write_text("")
        own.drop_old_logs("c", 4)
        assert [p.name for p in own.log("c", 0).parent.iterdir()] == ["3.log"]

    def test_another_boot_begins_with_the_init_containers(self) -> None:
        record = PodRecord.new(pod(container("a"), init=[container("i")]), NOW)
        ended = Ended(run_id="r", exit_code=0, reason="Completed", finished_at=NOW)
        for one in record.containers.values():
            one.phase, one.ended = "exited", ended
        record.initialized, record.sandbox = True, "boot"
        record.forget_sandbox()
        assert (record.initialized, record.sandbox) == (False, None)
        assert record.containers["i"].phase == "waiting"
        assert record.containers["i"].attempt == 1
        assert record.containers["a"].phase == "exited", "the restart policy says whether it starts again"


def test_run_ids() -> None:
    assert parse_run_id(run_id("3f-ab", "my-app", 12)) == ("3f-ab", "my-app", 12)


class TestTokens:
    def token(self, **claims: Any) -> str:
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"head.{body}.signature"

    @pytest.mark.parametrize(
        ("now", "uid", "fresh"),
        [
            (1000.0, "u", True),
            (1799.0, "u", True),
            (1801.0, "u", False),
            (1000.0, "other", False),
            (970.0, "u", True),  # within the API server's leeway
            (-2600.0, "u", False),  # the clock was put back an hour: it isn't valid yet
        ],
    )
    def test_four_fifths_of_its_life(self, now: float, uid: str, fresh: bool) -> None:
        token = self.token(iat=1000, exp=2000, **{"kubernetes.io": {"pod": {"uid": "u"}}})
        assert tokens.is_fresh(token, uid, now) is fresh

    @pytest.mark.parametrize("text", ["", "a.b.c", "a.e30.c", "nonsense"])
    def test_what_is_no_token_is_not_fresh(self, text: str) -> None:
        assert not tokens.is_fresh(text, "u", 0.0)


class TestRegistration:
    def test_a_lease_never_goes_back(self) -> None:
        hour = timedelta(hours=1)
        assert registration.renew_time(NOW, None) == NOW
        assert registration.renew_time(NOW + hour, NOW) == NOW + hour
        first = registration.renew_time(NOW - hour, NOW)
        second = registration.renew_time(NOW - hour, first)
        assert NOW < first < second < NOW + timedelta(seconds=1)

    @pytest.mark.parametrize(
        ("free_share", "before", "pressed"),
        [
            (0.5, False, False),
            (0.02, False, True),
            (0.04, False, False),
            (0.04, True, True),
            (0.06, True, False),
        ],
    )
    def test_a_disk_that_is_nearly_full_does_not_flap(
        self, free_share: float, before: bool, pressed: bool
    ) -> None:
        assert registration.disk_pressure(free_share, before) is pressed


class TestLogs:
    LINES = (
        b"2026-01-02T03:04:05.000000000Z stdout F one",
        b"2026-01-02T03:04:06.000000000Z stderr P two-",
        b"2026-01-02T03:04:06.500000000Z stderr F three",
        b"2026-01-02T03:04:07.000000000Z stdout F ",
        b"not a line",
    )

    def read(self, **options: Any) -> bytes:
        return b"".join(crilogs.select(self.LINES, crilogs.Options(**options)))

    def test_text(self) -> None:
        assert self.read() == b"one\ntwo-three\n\n"
        assert self.read(tail_lines=1) == b"\n"
        assert self.read(tail_lines=0) == b""
        assert self.read(since=b"2026-01-02T03:04:06.2") == b"three\n\n"
        assert self.read(timestamps=True).startswith(b"2026-01-02T03:04:05.000000000Z one\n")

    def test_options(self) -> None:
        found = crilogs.Options.of(
            {"sinceSeconds": "5", "tailLines": "3", "follow": "true", "limitBytes": "9"}, NOW
        )
        assert found == crilogs.Options(
            follow=True, tail_lines=3, limit_bytes=9, since=b"2026-01-02T03:04:00.000000"
        )
        at = crilogs.Options.of({"sinceTime": "2026-01-02T04:04:00+01:00"}, NOW)
        assert at.since == b"2026-01-02T03:04:00.000000"
        with pytest.raises(ValueError, match="invalid literal"):
            crilogs.Options.of({"tailLines": "many"}, NOW)

    def test_a_line_that_is_being_written_waits(self) -> None:
        file = io.BytesIO(b"a\nb\nhal")
        assert list(crilogs.whole_lines(file)) == [b"a", b"b"]
        assert file.tell() == 4

    async def test_following_across_a_rotation(self, tmp_path: Path) -> None:
        path, state = tmp_path / "0.log", {"runs": True}
        stamp = b"2026-01-02T03:04:05.000000000Z stdout F "
        path.write_bytes(stamp + b"1\n")
        found: list[bytes] = []

        async def follow() -> None:
            async for piece in crilogs.read(path, crilogs.Options(follow=True), lambda: state["runs"]):
                found.append(piece)

        async def until(text: bytes) -> None:
            while b"".join(found) != text:
                await asyncio.sleep(0.01)

        reader = asyncio.create_task(follow())
        async with asyncio.timeout(120):
            await until(b"1\n")
            with path.open("ab") as file:
                file.write(stamp + b"2\n")
            path.rename(tmp_path / "0.log.1")
            path.write_bytes(stamp + b"3\n")
            await until(b"1\n2\n3\n")
            with path.open("ab") as file:
                file.write(stamp + b"last\n")
            state["runs"] = False
            await reader
        assert b"".join(found) == b"1\n2\n3\nlast\n"

    async def test_a_limit_and_a_missing_log(self, tmp_path: Path) -> None:
        path = tmp_path / "0.log"
        gone = [piece async for piece in crilogs.read(path, crilogs.Options(), lambda: False)]
        assert gone == []
        path.write_bytes(b"\n".join(self.LINES) + b"\n")
        short = [piece async for piece in crilogs.read(path, crilogs.Options(limit_bytes=5), lambda: False)]
        assert b"".join(short) == b"one\nt"
        assert crilogs.last_text(path, lines=2, limit_bytes=100) == "three\n\n"
        assert crilogs.last_text(tmp_path / "none", lines=2, limit_bytes=100) == ""


class TestBindWatch:
    TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 112 1 0 100 0 0 10 0
   2: 00000000:1F92 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 113 1 0 100 0 0 10 0
"""

    def test_only_listeners_on_every_address(self) -> None:
        assert bind_watch.listeners_on_all(self.TABLE) == {111: 8080}

    def test_a_real_one_is_seen(self) -> None:
        with socket.socket() as one, socket.socket() as other:
            for held, host in ((one, "0.0.0.0"), (other, "127.0.0.1")):
                held.bind((host, 0))
                held.listen()
            found = set(bind_watch.read_listeners().values())
            assert one.getsockname()[1] in found
            assert other.getsockname()[1] not in found


def test_a_disk_that_cannot_be_looked_at_is_left_out(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "node")
    checkpoint.directory.mkdir()
    layout: Any = SimpleNamespace(node=NodeConfig(name="n", cpu="4", memory="8Gi"))
    unused: Any = None
    context = Context("s", unused, layout, unused, unused, checkpoint, unused, unused, unused, dict)
    assert set(context.allocatable) == {"cpu", "memory", "pods", "ephemeral-storage"}
    checkpoint.directory.rmdir()
    assert set(context.allocatable) == {"cpu", "memory", "pods"}
