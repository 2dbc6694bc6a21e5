"""The gateway, end to end: what it answers, and what its customers notice of faults (nothing, where there is a way)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import aiohttp
import pytest

from serving.gateway.routes import TIMEOUT_S
from switchboard.kube import PODS
from switchboard.paths import ROOT
from tests import pods
from tests.conftest import ControlPlane
from tests.pods import until
from tests.serving.gateway.relay import relay_to
from tests.serving.gateway.world import World

LOST = "watch of pods lost"
"""What an agent says that doesn't see the API server any more. (Of other kinds it says so before they are defined.)"""


async def test_a_request_is_answered_and_joined_by_its_id(gateway: World) -> None:
    await gateway.backends("a")
    status, body, headers = await gateway.ask("s-1")
    assert (status, body["session"]) == (200, "s-1")
    assert headers["x-request-id"]
    _, _, headers = await gateway.ask(headers={"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"
    assert not [name for name in headers if name.lower().startswith("x-envoy")]
    status, *_ = await gateway.ask(headers={"x-envoy-upstream-rq-timeout-ms": "1"})
    assert status == 200, "a customer doesn't steer Envoy"


async def test_what_the_gateway_answers_itself_is_json(gateway: World) -> None:
    await gateway.backend("a", ready=False)

    async def known() -> bool:
        return (await gateway.ask())[0] == 503

    await until(known, what="503, since the model server is known by its pod")
    status, body, headers = await gateway.ask()
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "unavailable", "1")
    assert body["request_id"] == headers["x-request-id"]
    for path in ("/v1/nobody", "/", "/v1/chatty", "/quitquitquit"):
        status, body, _ = await gateway.ask(path=path)
        assert (path, status, body["error"]["code"]) == (path, 404, "not_found")

    await pods.set_ready(gateway.kube, gateway.space, "a", True)
    await gateway.used({f"{gateway.subnet}.10"})
    status, body, _ = await gateway.ask(json={"text": "x" * 70_000})
    assert (status, body["error"]["code"]) == (413, "too_large")
    assert (await gateway.ask(json={"text": "x" * 60_000}))[0] == 200


async def test_probes_and_statistics(world: World) -> None:
    command = [sys.executable, "-m", "serving.gateway", "init"]
    await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env={**os.environ, **world.environ}, check=True, timeout=300
    )
    world.start_envoy()

    async def lives() -> bool:
        return await world.ops("/livez") == 200

    await until(lives, what="envoy")
    assert await world.ops("/ready") == 503, "it doesn't know any pod yet"
    assert (await world.ask())[0] == 503
    world.start_agent()
    await until(world.ready)
    assert await world.ops("/readyz") == 200
    await world.backends("a")
    for path in ("/quitquitquit", "/config_dump", "/stats"):
        assert await world.ops(path) == 404
    async with world.session.get(f"http://{world.ip}:9902/stats/prometheus") as answer:
        text = await answer.text()
    assert 'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="chat",le="300"}' in text
    assert 'envoy_cluster_membership_healthy{envoy_cluster_name="chat"} 1' in text
    assert (
        'envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="gateway"}'
        in text
    )
    assert "envoy_cluster_upstream_rq_retry_success" in text
    assert len(text) < 20_000


async def test_a_session_stays_with_its_replica(gateway: World) -> None:
    await gateway.backends("a", "b", "c")
    first = {s: (await gateway.ask(s))[1]["from"] for s in (f"session-{i}" for i in range(60))}
    assert len(set(first.values())) == 3
    assert {s: (await gateway.ask(s))[1]["from"] for s in first} == first


async def test_every_pod_deleted_in_turn_under_load(gateway: World) -> None:
    old = dict(zip("ab", await gateway.backends("a", "b"), strict=True))
    async with gateway.load(at_least=3000) as load:
        for turn in range(2):
            for name, backend in list(old.items()):
                new = f"{name[0]}{turn}"
                old[new] = await gateway.backend(new)
                await gateway.used({one.ip for one in old.values()})
                del old[name]
                await gateway.remove(name, backend)
    assert load.failed == 0, gateway.explain(load)
    assert len(load.by) == 6


async def test_replicas_killed_under_load(gateway: World) -> None:
    """Killed: no word from Kubernetes, connections reset, the pod still among the endpoints."""
    one, two, three = await gateway.backends("a", "b", "c")
    async with gateway.load(at_least=2000) as load:
        one.kill()
        before = load.total
        await until(lambda: load.total > before + 300)
        two.kill()
        before = load.total
        await until(lambda: load.total > before + 300)
    assert load.failed == 0, gateway.explain(load)
    assert load.by[three.ip] > 500


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param({"status": 503}, id="full"),
        pytest.param({"status": 502}, id="bad gateway"),
        pytest.param({"reset": True}, id="resets"),
        pytest.param({"ready": False}, id="fails its health check"),
    ],
)
async def test_a_replica_that_fails_requests(gateway: World, mode: dict[str, object]) -> None:
    bad, good = await gateway.backends("a", "b")
    async with gateway.load(at_least=600) as load:
        await bad.mode(**mode)
        before = load.total
        await until(lambda: load.total > before + 300)
    assert load.failed == 0, gateway.explain(load)
    await gateway.used({good.ip})
    await bad.mode()
    await gateway.used({good.ip, bad.ip})


async def test_an_answer_of_the_service_is_not_retried(gateway: World) -> None:
    (one,) = await gateway.backends("a")
    await one.mode(status=500)
    assert (await gateway.ask())[0] == 500
    await one.mode(status=400)
    assert (await gateway.ask())[0] == 400


async def test_a_replica_that_hangs(gateway: World) -> None:
    bad, good = await gateway.backends("a", "b")
    await bad.mode(delay_s=30)
    answers = await asyncio.gather(*(gateway.ask(f"s{i}") for i in range(12)))
    assert {body["from"] for status, body, _ in answers if status == 200} == {good.ip}
    assert all(status == 200 for status, _, _ in answers)
    await good.mode(delay_s=30)
    status, body, _ = await gateway.ask()
    assert (status, body["error"]["code"]) in ((504, "timeout"), (503, "unavailable"))


async def test_a_slow_replica_has_another_beside_it(gateway: World) -> None:
    await gateway.model_server(scaling__minReplicas=1, capacity={"hedgeMilliseconds": 200})
    slow, good = await gateway.backends("a", "b")
    await gateway.routed(lambda table: "hedge_on_per_try_timeout" in table)
    await gateway.healthy(slow.ip, good.ip)
    session = await gateway.session_of(slow)
    await slow.mode(holds=True)
    status, body, _ = await gateway.ask(session)
    assert (status, body["from"]) == (200, good.ip)

    # It is slow, and not out of reach: whoever is full must not be taken away from the others.
    assert all(one[0] == 200 for one in await asyncio.gather(*(gateway.ask(session) for _ in range(8))))
    ejected = "cluster.chat.outlier_detection.ejections_enforced_total"
    assert (await gateway.stats(ejected))[ejected] == 0

    # Both are slow: the first answer counts, and the first try is under way still.
    await good.mode(holds=True)
    came = len(await good.seen())
    asked = asyncio.create_task(gateway.ask(session))

    async def beside() -> bool:
        return len(await good.seen()) > came

    await until(beside, what="a try at the other one")
    await slow.mode()
    status, body, _ = await asked
    assert (status, body["from"]) == (200, slow.ip)

    # While a release divides the requests, a try beside another would be a failure of its arm.
    await good.mode()
    await gateway.backend("c", fleet="chat_candidate")
    await gateway.release(weight=10)
    await gateway.routed(lambda table: "hedge_on_per_try_timeout" not in table)


async def test_no_more_is_under_way_than_replicas_can_take(gateway: World) -> None:
    """Beyond that Envoy says so itself, and those that are under way are answered."""
    await gateway.model_server(scaling__minReplicas=1, capacity={"concurrency": 20})
    (one,) = await gateway.backends("a")
    await gateway.healthy(one.ip)
    await gateway.bounded(80)
    assert '"min_retry_concurrency":20' in (gateway.directory / "clusters.json").read_text()
    await one.mode(holds=True)
    asked = [asyncio.create_task(gateway.ask()) for _ in range(100)]

    async def refused() -> bool:
        return sum(task.done() for task in asked) >= 20

    await until(refused, what="those beyond the bound are refused")
    await one.mode()
    answers = [await task for task in asked]
    assert sorted(status for status, *_ in answers) == [200] * 80 + [503] * 20
    assert all(body["error"]["code"] == "unavailable" for status, body, _ in answers if status == 503)

    # Another replica, and twice as much may be.
    await gateway.backend("b")
    await gateway.bounded(160)


async def test_all_down_and_back(gateway: World) -> None:
    one, two = await gateway.backends("a", "b")
    one.kill()
    two.kill()
    started = time.monotonic()
    status, body, _ = await gateway.ask()
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert time.monotonic() - started < TIMEOUT_S
    await pods.gone(gateway.kube, gateway.space, "a")
    await pods.gone(gateway.kube, gateway.space, "b")
    await gateway.backends("c")


async def test_readiness_comes_and_goes_under_load(gateway: World) -> None:
    await gateway.backends("a", "b", "c")
    async with gateway.load(at_least=1500) as load:
        for turn in range(20):
            name = "abc"[turn % 3]
            await pods.set_ready(gateway.kube, gateway.space, name, False)
            await asyncio.sleep(0.02)
            await pods.set_ready(gateway.kube, gateway.space, name, True)
    assert load.failed == 0, gateway.explain(load)


async def test_the_agent_is_killed_and_comes_back(gateway: World) -> None:
    _, two = await gateway.backends("a", "b")
    agent = gateway.agent
    assert agent is not None
    async with gateway.load(at_least=500) as load:
        agent.kill()
        agent.wait()
        await gateway.kube.delete(PODS, "a", gateway.space)
        gateway.start_agent()
        await gateway.given("chat", {two.ip})
    await gateway.used({two.ip})
    assert load.failed == 0, gateway.explain(load)


async def test_files_that_another_hand_has_spoilt(gateway: World) -> None:
    """Envoy refuses nonsense and goes on; the agent writes what belongs there, so that Envoy may start anew."""
    (one,) = await gateway.backends("a")
    folder = gateway.directory
    names = ["clusters.json", "routes.json", "endpoints-chat.json"]
    right = {name: (folder / name).read_bytes() for name in names}
    async with gateway.load(at_least=500) as load:
        for name in names:
            other = folder / "other"
            other.write_text('{"resources": [{"no": "such"}')
            other.replace(folder / name)
        await until(lambda: all((folder / name).read_bytes() == right[name] for name in names))
        (folder / names[0]).unlink()
        await until(lambda: (folder / names[0]).exists())
    assert (folder / names[0]).read_bytes() == right[names[0]]
    assert load.failed == 0, gateway.explain(load)
    for process in (gateway.agent, gateway.envoy):
        assert process is not None
        process.kill()
        process.wait()
    gateway.start_envoy()
    await until(gateway.ready, what="ready from the files")
    await gateway.used({one.ip})


async def test_envoy_is_killed_and_comes_back_with_what_was_known(gateway: World) -> None:
    (one,) = await gateway.backends("a")
    for process in (gateway.agent, gateway.envoy):
        assert process is not None
        process.kill()
        process.wait()
    gateway.init()
    gateway.start_envoy()
    await until(gateway.ready, what="ready without an agent")
    await gateway.used({one.ip})


async def test_the_api_server_is_away(world: World, control_plane: ControlPlane) -> None:
    """Reached by a relay that is cut, and mended later."""
    relay, kubeconfig = relay_to(control_plane, world.directory)
    await relay.open()
    try:
        world.init()
        world.start_envoy()
        world.start_agent(kubeconfig)
        await until(world.ready)
        one, two = await world.backends("a", "b")
        async with world.load(at_least=500) as load:
            await relay.cut()
            await until(lambda: LOST in world.log("agent"))
            one.kill()
            before = load.total
            await until(lambda: load.total > before + 200)
        assert load.failed == 0, world.explain(load)

        assert world.agent is not None
        world.agent.kill()
        world.agent.wait()
        lost = world.log("agent").count(LOST)
        world.start_agent(kubeconfig)
        await until(lambda: world.log("agent").count(LOST) > lost, what="an agent that starts without a site")
        await world.used({two.ip})

        await pods.gone(world.kube, world.space, "a")
        await relay.open()
        three = await world.backend("c")
        await world.used({two.ip, three.ip})
    finally:
        await relay.cut()


class TestEdge:
    @pytest.fixture
    def gateway_environ(self) -> dict[str, str]:
        return {"GATEWAY_TIER": "edge", "GATEWAY_REGION": "cn-beijing"}

    async def test_an_edge_prefers_the_core_and_falls_back_to_its_own(self, gateway: World) -> None:
        own = await gateway.backend("own", tier="edge", region="cn-beijing")
        await gateway.backend("foreign", tier="edge", region="cn-hongkong")
        await gateway.used({own.ip})
        core = await gateway.backend("core"), await gateway.backend("core2")
        await gateway.used({one.ip for one in core})
        async with gateway.load(at_least=1000) as load:
            core[0].kill()
            before = load.total
            await until(lambda: load.total > before + 100)
            core[1].kill()
            before = load.total
            await until(lambda: load.total > before + 300)
        assert load.failed == 0, gateway.explain(load)
        await gateway.used({own.ip})


async def test_it_drains_before_it_ends(gateway: World) -> None:
    (one,) = await gateway.backends("a")
    agent = gateway.agent
    assert agent is not None
    connector = aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as held:
        url = f"{gateway.url}/v1/chat"
        async with held.post(url, json={}) as answer:
            assert "close" not in answer.headers.get("connection", "")
        agent.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return await gateway.ops("/ready") == 503

        await until(draining)
        assert await gateway.ops("/livez") == 200
        async with held.post(url, json={}) as answer:
            assert (answer.status, answer.headers["connection"]) == (200, "close")
    await gateway.session.close()
    await until(lambda: agent.poll() is not None, what="the agent's end, once no client is left")
    assert agent.returncode == 0
    assert one.process.poll() is None


async def test_a_failure_leaves_a_line(gateway: World) -> None:
    await gateway.backend("a", ready=False)

    async def failing() -> bool:
        return (await gateway.ask(headers={"X-Request-Id": "look-for-me"}))[0] == 503

    await until(failing)
    noted = [one for one in gateway.failures() if one["request_id"] == "look-for-me"]
    assert noted[-1]["status"] == 503
