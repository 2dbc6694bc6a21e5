"""One leader at a time: the rule as a table, and several leaders at a real API server with clocks of the tests' own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from operators import lease
from operators.app import WRITE_TIMEOUT_S
from operators.lease import DURATION_S, NAME, PERIOD_S, RENEW_DEADLINE_S, Leader, Seen, mark, may_take
from switchboard.kinds import Kind
from switchboard.kube import LEASES, Credentials, Kube, Object, Unreachable
from tests.conftest import ControlPlane

NOW = 1000.0
LONG_S = 60.0
"""Far more than anything here takes, on a busy machine too."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look takes is the machine's affair; all that is due here is by the tests' clocks."""
    monkeypatch.setattr(lease, "ATTEMPT_S", LONG_S)


def held(holder: str | None, renewed: str | None = "08:00", duration: int | None = DURATION_S) -> Object:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration}
    return {"spec": {key: value for key, value in spec.items() if value is not None}}


def seen(obj: Object, ago_s: float) -> Seen:
    return Seen(mark(obj), NOW - ago_s)


@pytest.mark.parametrize(
    ("obj", "known", "taken"),
    [
        pytest.param(None, None, True, id="there is none"),
        pytest.param({}, None, True, id="an empty one"),
        pytest.param(held(None), None, True, id="nobody has it"),
        pytest.param(held(""), None, True, id="it was given up"),
        pytest.param(held("me"), None, True, id="its own, of before a restart"),
        pytest.param(held("other"), None, False, id="another's, never seen before"),
        pytest.param(held("other"), seen(held("other"), 3), False, id="another's, renewed a moment ago"),
        pytest.param(held("other"), seen(held("other"), DURATION_S), False, id="just at its end"),
        pytest.param(held("other"), seen(held("other"), DURATION_S + 0.1), True, id="nobody has renewed it"),
        pytest.param(
            held("other", "08:01"),
            seen(held("other", "08:00"), 999),
            False,
            id="it was renewed since it was looked at",
        ),
        pytest.param(held("other"), seen(held("third"), 999), False, id="it has passed to another"),
        pytest.param(held("other", None), seen(held("other", None), 99), True, id="it has no time"),
        pytest.param(
            held("other", duration=30), seen(held("other"), 29), False, id="it is for longer than ours"
        ),
        pytest.param(
            held("other", duration=None),
            seen(held("other"), DURATION_S + 1),
            True,
            id="it doesn't say for how long",
        ),
    ],
)
def test_who_may_take_it(obj: Object | None, known: Seen | None, taken: bool) -> None:
    assert may_take(obj, "me", known, NOW) is taken


def test_a_holder_ends_before_another_begins() -> None:
    """The time between is for what has been begun: its requests end within it."""
    assert RENEW_DEADLINE_S + WRITE_TIMEOUT_S < DURATION_S
    assert 2 * PERIOD_S < RENEW_DEADLINE_S


@dataclass
class Clock:
    """A clock that stands still until it is told to go on."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


class Watched(Kube):
    """Counts the looks at a lease."""

    looks = 0

    async def get_or_none(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        self.looks += kind == LEASES
        return await super().get_or_none(kind, name, namespace)

    async def looked(self) -> None:
        """Until a look that begins from now on has been followed by what it leads to."""
        enough = self.looks + 2
        await until(lambda: self.looks >= enough)


def candidate(kube: Kube, namespace: str, identity: str, clock: Clock) -> Leader:
    """One that looks often; what is due is by the test's clock."""
    return Leader(kube, namespace, identity, clock=clock, period_s=0.05)


@pytest.fixture
async def watched(control_plane: ControlPlane) -> AsyncIterator[Watched]:
    """A connection of the test's own, which it may cut."""
    async with Watched(Credentials.from_kubeconfig(control_plane.kubeconfig), timeout_s=LONG_S) as found:
        yield found


@asynccontextmanager
async def leading(leader: Leader) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(leader.run())
    try:
        yield task
    finally:
        await stop(task)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(LONG_S):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


async def spec_of(api: Kube, namespace: str) -> dict[str, Any]:
    found = await api.get_or_none(LEASES, NAME, namespace)
    return dict((found or {}).get("spec") or {})


async def test_the_first_one_leads_and_the_second_stands_by(
    api: Kube, watched: Watched, namespace: str
) -> None:
    clock = Clock()
    one, two = candidate(api, namespace, "one", clock), candidate(watched, namespace, "two", clock)
    assert not one.leads
    async with leading(one):
        await until(lambda: one.leads)
        first = await spec_of(api, namespace)
        assert first["holderIdentity"] == "one"
        assert first["leaseDurationSeconds"] == DURATION_S
        assert first["leaseTransitions"] == 0
        async with leading(two):
            for _ in range(3):
                clock.now += RENEW_DEADLINE_S - 1  # altogether longer than the lease lasts, but it is renewed
                await until(lambda: one._renewed == clock.now)
                await watched.looked()
                assert (one.leads, two.leads) == (True, False)
            last = await spec_of(api, namespace)
            assert (last["holderIdentity"], last["acquireTime"]) == ("one", first["acquireTime"])
            assert last["renewTime"] > first["renewTime"]


async def test_who_gives_it_up_hands_over_at_once(api: Kube, namespace: str) -> None:
    clock = Clock()
    one, two = (candidate(api, namespace, name, clock) for name in ("one", "two"))
    first = asyncio.create_task(one.run())
    await until(lambda: one.leads)
    async with leading(two):
        await stop(first)
        assert not one.leads
        await until(lambda: two.leads)  # though the clock hasn't gone on
        found = await spec_of(api, namespace)
        assert (found["holderIdentity"], found["leaseTransitions"]) == ("two", 1)
    assert (await spec_of(api, namespace))["holderIdentity"] == ""


class Stopping(Kube):
    """Stops a task in the moment in which its Lease is made."""

    task: asyncio.Task[None]

    async def create(self, kind: Kind, body: Object, *args: Any, **more: Any) -> Object:
        made = await super().create(kind, body, *args, **more)
        self.task.cancel()
        return made


async def test_a_stop_at_the_end_of_a_look_is_a_stop(control_plane: ControlPlane, namespace: str) -> None:
    async with Stopping(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        kube.task = asyncio.create_task(candidate(kube, namespace, "one", Clock()).run())
        await asyncio.wait([kube.task], timeout=LONG_S)
        assert kube.task.cancelled()
        assert (await spec_of(kube, namespace))["holderIdentity"] == ""


class Late(Kube):
    """A renewal comes to be made while `leader` gives the lease up, just after that has read it."""

    leader: Leader | None = None

    async def get_or_none(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        found = await super().get_or_none(kind, name, namespace)
        if found is not None and self.leader is not None and self.leader._renewed is None:
            self.leader = None
            await self.replace(kind, {**found, "spec": {**found["spec"], "renewTime": LATE}})
        return found


LATE = "2026-01-05T08:00:00.000000Z"


async def test_a_renewal_that_the_stop_cut_off_keeps_nobody_waiting(
    control_plane: ControlPlane, namespace: str
) -> None:
    async with Late(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        async with leading(one := candidate(kube, namespace, "one", Clock())):
            await until(lambda: one.leads)
            kube.leader = one
        assert kube.leader is None
        found = await spec_of(kube, namespace)
        assert found["holderIdentity"] == ""
        assert found["renewTime"] > LATE


class Lossy(Kube):
    """Its changes are made, and their answers lost, as often as is said."""

    lost = 0

    async def replace(self, kind: Kind, body: Object, **more: Any) -> Object:
        made = await super().replace(kind, body, **more)
        if self.lost:
            self.lost -= 1
            raise Unreachable("the line was cut")
        return made


async def test_terms_tell_whether_another_has_led(control_plane: ControlPlane, namespace: str) -> None:
    """What was known in a term is true as long as it lasts, also where it was cut off for a while."""
    clock = Clock()
    async with Lossy(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        async with leading(one := candidate(kube, namespace, "one", clock)):
            await until(lambda: one.leads)
            assert one.term == 1
            clock.now += 2 * DURATION_S
            await until(lambda: one.leads)
            assert one.term == 1  # nobody has taken it

        made = await kube.get(LEASES, NAME, namespace)
        made["spec"]["holderIdentity"] = "two"
        await kube.replace(LEASES, made)
        kube.lost = 3
        async with leading(one):
            await until(lambda: one._seen is not None and one._seen.mark[0] == "two")
            clock.now += DURATION_S + 1
            await until(lambda: one.leads)
            assert (one.term, kube.lost) == (2, 0)


async def test_who_does_not_hold_it_gives_nothing_up(api: Kube, watched: Watched, namespace: str) -> None:
    clock = Clock()
    async with leading(one := candidate(api, namespace, "one", clock)):
        await until(lambda: one.leads)
        async with leading(candidate(watched, namespace, "two", clock)):
            await watched.looked()
        assert (await spec_of(api, namespace))["holderIdentity"] == "one"


async def test_of_many_that_begin_together_one_leads(api: Kube, namespace: str) -> None:
    clock = Clock()
    leaders = [candidate(api, namespace, f"operator-{number}", clock) for number in range(6)]
    tasks = [asyncio.create_task(one.run()) for one in leaders]
    try:
        await until(lambda: any(one.leads for one in leaders))
        holder = (await spec_of(api, namespace))["holderIdentity"]
        for _ in range(20):
            assert [one.identity for one in leaders if one.leads] == [holder]
            await asyncio.sleep(0.02)
    finally:
        for task in tasks:
            await stop(task)


async def test_a_holder_that_can_not_renew_ends_before_another_begins(
    control_plane: ControlPlane, api: Kube, watched: Watched, namespace: str
) -> None:
    clock = Clock()
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    async with Watched(credentials, timeout_s=LONG_S) as line:
        one, two = candidate(line, namespace, "one", clock), candidate(watched, namespace, "two", clock)
        first = asyncio.create_task(one.run())
        await until(lambda: one.leads)
        server, credentials.server = credentials.server, f"https://{control_plane.layout.control_plane_ip}:1"
        await line.looked()  # a renewal that was on its way is made by now
        before = await spec_of(api, namespace)
        async with leading(two):
            await watched.looked()
            ended = taken = None
            for passed in range(2 * DURATION_S):
                await watched.looked()
                assert not (one.leads and two.leads)
                if ended is None and not one.leads:
                    ended = passed
                if two.leads:
                    taken = passed
                    break
                clock.now += 1
            assert ended == RENEW_DEADLINE_S
            assert taken == DURATION_S + 1
            after = await spec_of(api, namespace)
            assert (after["holderIdentity"], after["leaseTransitions"]) == ("two", 1)
            assert after["renewTime"] > before["renewTime"]

            credentials.server = server  # it is back, and sees that another one leads
            await watched.looked()
            assert not one.leads
        await until(lambda: one.leads)
        await stop(first)


async def test_one_that_was_killed_leads_again_by_its_name(
    api: Kube, watched: Watched, namespace: str
) -> None:
    """Its container is started anew within the time of its lease: nobody else may have it, so it needn't wait."""
    made = {"metadata": {"name": NAME, "namespace": namespace}, "spec": held("one")["spec"]}
    made["spec"]["renewTime"] = "2026-01-05T08:00:00.000000Z"
    await api.create(LEASES, made)
    clock = Clock()
    async with leading(two := candidate(watched, namespace, "two", clock)):
        await watched.looked()
        assert not two.leads
        async with leading(one := candidate(api, namespace, "one", clock)):
            await until(lambda: one.leads)
            assert (await spec_of(api, namespace)).get("leaseTransitions", 0) == 0


async def test_what_is_in_the_lease_and_is_not_ours_stays(api: Kube, namespace: str) -> None:
    made = {
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"team": "models"}},
        "spec": {"holderIdentity": "", "leaseTransitions": 4},
    }
    await api.create(LEASES, made)
    async with leading(one := candidate(api, namespace, "one", Clock())):
        await until(lambda: one.leads)
        found = await api.get(LEASES, NAME, namespace)
        assert found["metadata"]["labels"] == {"team": "models"}
        assert (found["spec"]["holderIdentity"], found["spec"]["leaseTransitions"]) == ("one", 5)
