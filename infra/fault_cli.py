"""`switchboard infra fault …`: one fault of the embedded cloud, for as long as the command runs.

What it does is undone when it ends, by itself, by Ctrl-C or by SIGTERM: no fault outlives its command.
"""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from infra.stack_option import StackOption, known
from switchboard.errors import SwitchboardError
from switchboard.paths import DEFAULT_STACK, state_dir
from switchboard.printing import Output, OutputOption

if TYPE_CHECKING:
    from infra.local.faults import Container
    from infra.local.layout import NodeLayout, SiteLayout
    from switchboard.kube import Kube

app = typer.Typer(
    no_args_is_help=True, help="Break something of the embedded cloud, for as long as the command runs."
)

POD, NODE, PROCESS = "pod", "node", "process"

TargetArgument = Annotated[
    str, typer.Argument(metavar="KIND/NAME", help="pod/NAME, node/NAME, or process/NAME of a site.")
]
SiteOption = Annotated[
    str | None, typer.Option(help="Where it is.", show_default="the first public one of the stack")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Of a pod.")]
ForOption = Annotated[float, typer.Option("--for", min=0.1, max=3600, metavar="SECONDS", help="How long.")]
SERVING = "switchboard-serving"


@app.command(
    epilog="Examples: `switchboard infra fault kill pod/chat-5c9d7b8f6d-x2x4z` · "
    "`switchboard infra fault kill node/public-1` · `switchboard infra fault kill process/kube-apiserver`"
)
def kill(
    target: TargetArgument,
    namespace: NamespaceOption = SERVING,
    site: SiteOption = None,
    stack: StackOption = DEFAULT_STACK,
    output: OutputOption = Output.TEXT,
) -> None:
    """End a pod's containers, all of a node's, or a process of a site, at once and without a word."""
    from infra.local import faults, processes

    layout = _site(stack, site)
    kind, name = _split(target)
    if kind == PROCESS:
        record = faults.program(layout, name)
        begun = time.time()
        processes.end(record.pid, record.started_ticks, grace_s=0.0, first=signal.SIGKILL)
    else:
        those = _containers(layout, kind, name, namespace)
        begun = time.time()
        faults.kill(those)
    _tell(output, "killed", target, begun)


@app.command(
    epilog="Examples: `switchboard infra fault freeze pod/chat-5c9d7b8f6d-x2x4z --for 20` · "
    "`switchboard infra fault freeze node/public-1 --for 60` · "
    "`switchboard infra fault freeze process/kube-apiserver --for 10`"
)
def freeze(
    target: TargetArgument,
    seconds: ForOption = 20.0,
    namespace: NamespaceOption = SERVING,
    site: SiteOption = None,
    stack: StackOption = DEFAULT_STACK,
    output: OutputOption = Output.TEXT,
) -> None:
    """Stop a pod, a node with all that is on it, or a process of a site: it keeps its place and answers nobody."""
    from infra.local import faults

    layout = _site(stack, site)
    kind, name = _split(target)
    if kind == PROCESS:
        _last(faults.frozen((), [faults.program(layout, name).pid]), seconds, output, "frozen", target)
    elif kind == NODE:
        _last(faults.lost(layout, _node(layout, name)), seconds, output, "frozen", target)
    else:
        those = _containers(layout, kind, name, namespace)
        _last(faults.frozen(those), seconds, output, "frozen", target)


@app.command(epilog="Example: `switchboard infra fault slow pod/chat-5c9d7b8f6d-x2x4z --cpu 20 --for 30`")
def slow(
    target: TargetArgument,
    cpu: Annotated[int, typer.Option(min=1, max=64_000, help="Thousandths of a core.")] = 20,
    seconds: ForOption = 20.0,
    namespace: NamespaceOption = SERVING,
    site: SiteOption = None,
    stack: StackOption = DEFAULT_STACK,
    output: OutputOption = Output.TEXT,
) -> None:
    """Leave a pod, or all of a node's, little processor time."""
    from infra.local import faults

    layout = _site(stack, site)
    those = _containers(layout, *_split(target), namespace)
    _last(faults.slowed(those, cpu), seconds, output, "slowed", target)


@app.command(epilog="Example: `switchboard infra fault fill pod/chat-5c9d7b8f6d-x2x4z`")
def fill(
    target: TargetArgument,
    seconds: ForOption = 20.0,
    namespace: NamespaceOption = SERVING,
    site: SiteOption = None,
    stack: StackOption = DEFAULT_STACK,
    output: OutputOption = Output.TEXT,
) -> None:
    """Leave a pod, or all of a node's, no more memory than it has taken: it is at its limit."""
    from infra.local import faults

    layout = _site(stack, site)
    those = _containers(layout, *_split(target), namespace)
    _last(faults.filled(those), seconds, output, "filled", target)


@app.command(epilog="Example: `switchboard infra fault cut node/edge-beijing-1 --for 60`")
def cut(
    target: TargetArgument,
    seconds: ForOption = 20.0,
    site: SiteOption = None,
    stack: StackOption = DEFAULT_STACK,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cut a node off from its cluster: its customers reach it, and it reaches nothing but what is on it."""
    from infra.local import cutting, faults
    from infra.local.node.agent import runtime_dir

    layout = _site(stack, site)
    kind, name = _split(target)
    if kind != NODE:
        raise SwitchboardError("a node can be cut off, and nothing else", "write node/NAME")
    node = _node(layout, name)
    own = [str(node.ip), *asyncio.run(_addresses(layout, name))]
    pids = {pid for one in faults.containers(runtime_dir(node)) for pid in one.processes()}
    _last(cutting.cut(name, [*faults.agent_of(layout, node), *pids], own), seconds, output, "cut", target)


def _last(
    fault: AbstractContextManager[None], seconds: float, output: Output, done: str, target: str
) -> None:
    """Until it is over, or this command is told to end."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    begun = time.time()
    with fault:
        _tell(output, done, target, begun)
        ended.wait(seconds)
    _tell(output, "mended", target, time.time())


def _tell(output: Output, done: str, target: str, at: float) -> None:
    """For whoever measures what came of it; each line is there at once."""
    if output is Output.JSON:
        print(json.dumps({"at": round(at, 3), "event": done, "target": target}), flush=True)
    else:
        print(f"{target} {done}", flush=True)


def _site(stack: str, name: str | None) -> SiteLayout:
    from infra import config
    from infra.local.layout import SiteLayout

    known(stack)
    sites = [one for one in config.load(stack).sites if one.embedded is not None]
    if not sites:
        raise SwitchboardError(
            f"the stack {stack} isn't embedded on this machine: nothing of it is broken here"
        )
    names = ", ".join(one.name for one in sites)
    if name is None:
        found = next((one for one in sites if one.role == "public"), sites[0])
    else:
        chosen = [one for one in sites if one.name == name]
        if not chosen:
            raise SwitchboardError(f"the stack {stack} has no embedded site {name}", f"there are {names}")
        found = chosen[0]
    return SiteLayout(found, state_dir(stack))


def _split(target: str) -> tuple[str, str]:
    kind, slash, name = target.partition("/")
    if not slash or not name or kind not in (POD, NODE, PROCESS):
        raise SwitchboardError(f"{target!r} names nothing", "write pod/NAME, node/NAME or process/NAME")
    return kind, name


def _node(layout: SiteLayout, name: str) -> NodeLayout:
    found = [one for one in layout.nodes if one.name == name]
    if not found:
        there = ", ".join(one.name for one in layout.nodes)
        raise SwitchboardError(f"the site {layout.name} has no node {name}", f"there are {there}")
    return found[0]


def _containers(layout: SiteLayout, kind: str, name: str, namespace: str) -> list[Container]:
    from infra.local import faults
    from infra.local.node.agent import runtime_dir

    if kind == PROCESS:
        raise SwitchboardError("a process of a site can be killed or frozen; this is for pods and nodes")
    if kind == NODE:
        return faults.containers(runtime_dir(_node(layout, name)))
    uid, node = asyncio.run(_where(layout, name, namespace))
    found = faults.containers(runtime_dir(_node(layout, node)), uid)
    if not found:
        raise SwitchboardError(f"nothing of the pod {name} runs")
    return found


async def _where(layout: SiteLayout, name: str, namespace: str) -> tuple[str, str]:
    """A pod's uid and node."""
    from switchboard.kinds import PODS

    async with _kube(layout) as kube:
        pod = await kube.get(PODS, name, namespace)
    node = pod["spec"].get("nodeName")
    if not node:
        raise SwitchboardError(f"the pod {name} is on no node yet")
    return str(pod["metadata"]["uid"]), str(node)


async def _addresses(layout: SiteLayout, node: str) -> list[str]:
    """Of the pods of a node."""
    from switchboard.kinds import PODS

    async with _kube(layout) as kube:
        pods = await kube.list(PODS, field_selector=f"spec.nodeName={node}")
    return sorted({pod["status"]["podIP"] for pod in pods if pod["status"].get("podIP")})


@asynccontextmanager
async def _kube(layout: SiteLayout) -> AsyncIterator[Kube]:
    from switchboard.kube import ApiError, Credentials, Kube, Unreachable

    try:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
            yield kube
    except ApiError as error:
        raise SwitchboardError(error.message) from None
    except Unreachable as error:
        raise SwitchboardError(f"the site {layout.name} doesn't answer: {error}") from None
