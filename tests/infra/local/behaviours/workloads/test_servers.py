"""Servers that everybody knows, from Debian's packages: PostgreSQL and Redis keep their data, nginx its promise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from infra.local.runtime import UnknownImage, resolve
from switchboard.kube import CONFIG_MAPS, DEPLOYMENTS, SERVICES, Object
from tests.infra.local.behaviours.cluster import WAIT_S, Cluster, Space
from tests.infra.local.behaviours.conftest import LAB
from tests.infra.local.behaviours.manifests import pod, ready, sh
from tests.infra.local.behaviours.scenario import behaviour

FOLDER = Path(__file__).parent


def documents(name: str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()))


async def apply(space: Space, listed: list[Object]) -> None:
    await space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(listed))


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """The packages are fetched once a machine; without them there is nothing to try."""
    for reference in ("postgres:15", "redis:7", "nginx:1.22"):
        try:
            resolve(reference)
        except UnknownImage as error:
            pytest.skip(str(error))


@behaviour()
async def test_postgres_keeps_its_rows(space: Space, cluster: Cluster) -> None:
    """Over the deletion of its pod, one that leaves it no time, and its node's going down and coming up again."""
    listed = documents("postgres")
    spec = next(d for d in listed if d["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    spec |= {
        "nodeSelector": {"kubernetes.io/hostname": LAB[0]},
        "tolerations": [{"key": "lab", "operator": "Exists"}],
    }
    await apply(space, listed)
    await space.until("postgres-0", ready)
    env = [
        {"name": "PGHOST", "value": "postgres"},
        {"name": "PGUSER", "value": "postgres"},
        {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "postgres", "key": "password"}}},
    ]
    asked = 0

    async def query(*statements: str) -> list[str]:
        """Through the Service, as a client of its own."""
        nonlocal asked
        asked += 1
        commands = " ".join(f'-c "{statement}"' for statement in statements)
        script = f"until pg_isready -q; do sleep 0.1; done; psql -At -v ON_ERROR_STOP=1 {commands}"
        client = sh(script, image="postgres:15", env=env)
        return (await space.output(pod(f"client-{asked}", client))).splitlines()

    await query(
        "create table accounts (id int primary key, owner text)", "insert into accounts values (1, '李')"
    )
    select = "select id, owner from accounts order by id"
    for number, grace_s in ((2, 30), (3, 1)):
        before = await space.get("postgres-0")
        await query(f"insert into accounts values ({number}, 'owner {number}')")  # noqa: S608 - a number of ours
        await space.delete("postgres-0", grace_period_s=grace_s)
        await space.until(
            "postgres-0", lambda p, uid=before["metadata"]["uid"]: p["metadata"]["uid"] != uid and ready(p)
        )
    assert await query(select) == ["1|李", "2|owner 2", "3|owner 3"]
    await cluster.restart_node(LAB[0])
    after = await space.until(
        "postgres-0", lambda p: ready(p) and p["status"]["containerStatuses"][0]["restartCount"]
    )
    assert await query(select) == ["1|李", "2|owner 2", "3|owner 3"]
    assert after["spec"]["nodeName"] == LAB[0]


@behaviour()
async def test_redis_goes_on_from_its_replicas(space: Space) -> None:
    """What was written is at the followers when the leader is killed, and at the leader when it is back."""
    await apply(space, documents("redis"))
    pods = await space.until_all(lambda pods: len(pods) == 3 and all(ready(p) for p in pods), app="redis")
    assert len({p["spec"]["nodeName"] for p in pods}) == 3

    async def talk(number: int, *commands: str) -> list[str]:
        """In the words of the protocol, from outside the cluster, on one connection."""
        p = await space.get(f"redis-{number}")
        reader, writer = await asyncio.open_connection(p["status"]["podIP"], 6379)
        answers = []
        try:
            for command in commands:
                writer.write(f"{command}\r\n".encode())
                line = (await reader.readline()).decode().strip()
                if line.startswith("$") and (size := int(line[1:])) >= 0:
                    line = (await reader.readexactly(size + 2)).decode().strip()
                answers.append(line)
            return answers
        finally:
            writer.close()

    async def ask(number: int, command: str) -> str:
        return (await talk(number, command))[0]

    async def until(number: int, expected: str, command: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(OSError):
                    if expected in await ask(number, command):
                        return
                await asyncio.sleep(0.1)

    await until(0, "connected_slaves:2", "INFO replication")
    # How many have it is told to the connection that wrote it.
    assert await talk(0, "SET balance 42", "WAIT 2 60000") == ["+OK", ":2"]
    leader = await space.get("redis-0")
    await space.delete("redis-0", grace_period_s=1)
    assert await ask(1, "GET balance") == "42"
    assert await ask(2, "GET balance") == "42"
    await space.until("redis-0", lambda p: p["metadata"]["uid"] != leader["metadata"]["uid"] and ready(p))
    assert await ask(0, "GET balance") == "42"
    await until(0, "connected_slaves:2", "INFO replication")
    assert await ask(0, "SET balance 43") == "+OK"
    await until(1, "43", "GET balance")


@contextlib.asynccontextmanager
async def customers(address: str) -> AsyncIterator[list[Any]]:
    """Requests, one after the other and each on a connection of its own, as long as this lasts; what they got."""
    answers: list[Any] = []

    async def ask(session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(f"http://{address}/") as response:
                    answers.append((response.status, await response.text()))
            except (aiohttp.ClientError, TimeoutError) as error:
                answers.append(error)
            await asyncio.sleep(0.01)

    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        asking = [asyncio.create_task(ask(session)) for _ in range(3)]
        try:
            yield answers
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


@behaviour()
async def test_nginx_changes_its_page_without_a_failed_request(space: Space) -> None:
    await apply(space, documents("nginx"))
    await space.until("web", lambda d: d["status"].get("readyReplicas") == 2, DEPLOYMENTS)
    address = (await space.get("web", SERVICES))["spec"]["clusterIP"]
    async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as session:
        while True:  # the Service proxy knows of its first endpoint
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://{address}/") as response:
                    assert await response.text() == "version 1"
                    break
            await asyncio.sleep(0.1)
    async with customers(address) as answers:
        await space.patch("page", {"data": {"index.html": "version 2"}}, CONFIG_MAPS)
        change = {"spec": {"template": {"metadata": {"annotations": {"page": "2"}}}}}
        await space.patch("web", change, DEPLOYMENTS)
        await space.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
        await space.until_all(lambda pods: len(pods) == 2, app="web")
        since = len(answers)
        while len(answers) < since + 30:  # some are under way
            await asyncio.sleep(0.05)
    assert {answer for answer in answers if answer not in ((200, "version 1"), (200, "version 2"))} == set()
    assert set(answers[-20:]) == {(200, "version 2")}
