"""How a container is ended: preStop hook, SIGTERM, the rest of its time, SIGKILL. And how hooks are run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Mapping
from typing import Any

from infra.local.node.probes import http_get
from infra.local.runtime import NoSuchContainer, Runtime
from switchboard.kube import Object

log = logging.getLogger(__name__)

_LEAST_AFTER_HOOK_S = 2.0
_LONGEST_S = 86_400.0
HTTP_HOOK_S = 600.0
"""An answer that hasn't come by then won't: the one that was asked may be gone without a word."""


class HookFailed(Exception):
    """A postStart or preStop hook that didn't work."""


async def run_hook(
    runtime: Runtime,
    run_id: str,
    one: Object,
    handler: Mapping[str, Any],
    pod_ip: str,
    timeout_s: float | None,
) -> None:
    """Carry out a lifecycle handler (exec, httpGet, sleep); without `timeout_s` for a day at most, HTTP for 10 min.

    Raises:
        HookFailed: it failed or took too long.
    """
    most_s = timeout_s or (HTTP_HOOK_S if handler.get("httpGet") else _LONGEST_S)
    try:
        async with asyncio.timeout(most_s):
            if action := handler.get("exec"):
                result = await runtime.exec(run_id, action["command"], most_s)
                if result.exit_code != 0:
                    raise HookFailed(f"command exited with {result.exit_code}: {result.text.strip()[-500:]}")
            elif action := handler.get("httpGet"):
                answer = await http_get(action, one, pod_ip)
                if not answer.ok:
                    raise HookFailed(answer.message)
            elif action := handler.get("sleep"):
                await asyncio.sleep(float(action["seconds"]))
    except TimeoutError:
        raise HookFailed(f"not done within {most_s:g} s") from None
    except (OSError, ValueError, NoSuchContainer) as error:
        raise HookFailed(str(error) or type(error).__name__) from error


def stop_signal(one: Object) -> signal.Signals:
    """The signal that asks a container to end: SIGTERM, or its own `lifecycle.stopSignal`."""
    name = (one.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
    return signal.Signals.__members__.get(name, signal.SIGTERM)


async def end_container(
    runtime: Runtime,
    run_id: str,
    one: Object,
    pod_ip: str,
    ended: asyncio.Future[Any],
    deadline: Callable[[], float],
    on_hook_failure: Callable[[str], None],
) -> None:
    """End it; returns when `ended` (somebody else's wait for its exit) is done.

    `deadline` is asked again and again, on the loop's clock: a second deletion may bring it nearer.
    """
    loop = asyncio.get_running_loop()
    hook = (one.get("lifecycle") or {}).get("preStop")
    after_hook = deadline()
    if hook and deadline() > loop.time():
        # The hook gets what time there is; a program whose hook took all of it still gets a moment after the signal.
        running = asyncio.ensure_future(
            run_hook(runtime, run_id, one, hook, pod_ip, max(0.1, deadline() - loop.time()))
        )
        while not running.done() and not ended.done() and loop.time() < deadline():
            await asyncio.wait(
                {running, ended}, timeout=_slice(deadline() - loop.time()), return_when="FIRST_COMPLETED"
            )
        if not running.done():
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await running
            except HookFailed as error:
                on_hook_failure(str(error))
        after_hook = loop.time() + _LEAST_AFTER_HOOK_S
    if ended.done():
        return
    with contextlib.suppress(NoSuchContainer):
        await runtime.signal(run_id, stop_signal(one))
        while (
            not ended.done() and (left := max(deadline(), min(after_hook, deadline() + 2)) - loop.time()) > 0
        ):
            await asyncio.wait({ended}, timeout=_slice(left))
        if not ended.done():
            await runtime.signal(run_id, signal.SIGKILL)
    await asyncio.wait({ended})


def _slice(left_s: float) -> float:
    # Short, so that a deadline that was brought forward is seen soon; ending pods are few.
    return max(0.0, min(left_s, 0.25))
