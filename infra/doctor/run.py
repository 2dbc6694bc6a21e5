"""All checks of a stack and its machine, several at a time; a check that fails itself takes no other with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from infra import config
from infra.doctor import clusters, drift, leftovers, machine, programs, servers, sites, stackfile, state
from infra.doctor.report import Finding, Report, failed, of_error, one_line, skipped
from infra.local.layout import SiteLayout
from infra.local.toolchain.recipes import TOOLS
from infra.namespaces import SERVING_NAMESPACE
from switchboard.errors import SwitchboardError
from switchboard.kube import Credentials, Kube
from switchboard.paths import state_dir

OF_ANY_STACK = (
    "pulumi",
    "pulumi-language-python",
    "pulumi-language-python-exec",
    "pulumi-analyzer-policy-python",
    "kubectl",
)
"""The tools that a stack of existing clusters needs too."""


def examine(stack_name: str) -> Report:
    """Look at everything, change nothing; the findings are in the order in which things stand on each other."""
    started = time.monotonic()
    stack = _load(stack_name)
    # A stack file that can't be read is most often the embedded one's, which needs most.
    embedded = isinstance(stack, SwitchboardError) or any(site.embedded for site in stack.sites)
    layouts = _layouts(stack_name, stack)
    # Where it can't be told what should run, nothing that runs is left over.
    running = isinstance(stack, SwitchboardError) or any(sites.running(layout) for layout in layouts)
    with ThreadPoolExecutor(max_workers=6) as pool:

        def of(check: str, work: Callable[[], list[Finding]]) -> Future[list[Finding]]:
            return pool.submit(_safely, check, work)

        groups = [
            of("machine", lambda: machine.judge(machine.look(stack_name, layouts, embedded=embedded))),
            of("tools", lambda: _tools(stack_name, embedded=embedded)),
            of("environment/packages", lambda: programs.judge_packages(programs.look_at_packages())),
            of("stack/file", lambda: stackfile.judge(stack_name, stack)),
            of("sites", lambda: asyncio.run(_sites(stack_name, stack, layouts))),
            of("leftovers", lambda: leftovers.judge(leftovers.look(stack_name, running=running))),
        ]
        findings = [finding for group in groups for finding in group.result()]
    return Report(stack=stack_name, findings=findings, seconds=round(time.monotonic() - started, 2))


def _load(stack_name: str) -> config.Stack | SwitchboardError:
    try:
        return config.load(stack_name)
    except SwitchboardError as error:
        return error


def _layouts(stack_name: str, stack: config.Stack | SwitchboardError) -> list[SiteLayout]:
    if isinstance(stack, SwitchboardError):
        return []
    return [SiteLayout(site, state_dir(stack_name)) for site in stack.sites if site.embedded is not None]


def _safely(check: str, work: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return work()
    except SwitchboardError as error:
        return [of_error(check, error, "correct that, then run this again")]
    except Exception as error:  # the doctor is asked when things are odd: what it can't see it says
        return [
            failed(
                check,
                f"couldn't be looked at: {type(error).__name__}: {one_line(error)[:200]}",
                "the checks around it may say why; otherwise it is a defect of Switchboard's to report",
            )
        ]


def _tools(stack_name: str, *, embedded: bool) -> list[Finding]:
    tools = programs.look_at_tools(TOOLS if embedded else OF_ANY_STACK)
    return [
        *map(programs.judge_tool, tools),
        programs.judge_build(programs.look_at_build(tools)),
        programs.judge_plugin(programs.look_at_plugin(stack_name)),
    ]


async def _sites(
    stack_name: str, stack: config.Stack | SwitchboardError, layouts: list[SiteLayout]
) -> list[Finding]:
    """The sites, each beside the others, and the stack's state with its drift."""
    if isinstance(stack, SwitchboardError):
        return [skipped("sites", "the stack file can't be read")]
    facts, objects = state.look(stack_name)
    kubeconfigs = [layout.kubeconfig for layout in layouts if sites.running(layout)]
    foreign = [(site, index) for index, site in enumerate(stack.sites) if site.cluster is not None]
    compared = asyncio.create_task(drift.look(objects, kubeconfigs))
    found = await asyncio.gather(
        *(_site(layout) for layout in layouts), *(clusters.examine(*each, stack_name) for each in foreign)
    )
    differences = await compared
    findings = [finding for group in found for finding in group]
    if not stack.embedded:
        return [*findings, skipped("state", "kept where Pulumi is logged in: `pulumi preview` looks at it")]
    return [*findings, *state.judge(replace(facts, drift=differences))]


async def _site(layout: SiteLayout) -> list[Finding]:
    try:
        found = sites.of_site(layout.name, await sites.look(layout))
    except SwitchboardError as error:
        return sites.of_site(layout.name, error)
    if layout.site.role != "public" or not sites.running(layout):
        return found
    try:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig), timeout_s=drift.TIMEOUT_S) as kube:
            there = await servers.look(kube, SERVING_NAMESPACE)
    except SwitchboardError:
        there = None
    if there is None:
        return [*found, skipped(f"sites/{layout.name}/model servers", "the API server didn't say")]
    return [*found, *servers.judge(f"sites/{layout.name}", layout.name, there)]
