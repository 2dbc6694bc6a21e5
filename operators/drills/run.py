"""Releases one candidate while customers ask, and waits until nothing is left of it."""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from operators.drills.candidates import Candidate
from operators.drills.figures import Outcome, score
from operators.releases import shown
from operators.releases.access import begin, get
from switchboard.api.model_release import FINALIZER, Order, Phase, Status
from switchboard.api.model_server import MODEL_SERVERS, Spec
from switchboard.errors import SwitchboardError
from switchboard.kinds import MODEL_RELEASES
from switchboard.kube import ApiError, Kube, Object, Unreachable
from switchboard.requests import Request, read

IMAGE = "switchboard-drills"
PERIOD_S = 0.5
LEAD_S = 10.0
"""Customers ask for so long before a release, and after it."""
WARM_S = 15
END_S = 300.0
"""What a release does after its verdict, at the longest: the old version is let go, arms drain."""


@dataclass(frozen=True)
class Setting:
    """Where it is drilled: the ModelServer and its namespace, the gateway that customers ask, so many a second."""

    server: str
    namespace: str
    url: str
    rate_rps: float
    within_s: int


async def model_of(kube: Kube, setting: Setting) -> str:
    """The registered model of the ModelServer.

    Raises:
        SwitchboardError: there is no such ModelServer, or one whose image doesn't do what is wrong with candidates.
    """
    found = await kube.get_or_none(MODEL_SERVERS, setting.server, setting.namespace)
    if found is None:
        raise SwitchboardError(
            f"there is no ModelServer {setting.server} in {setting.namespace}", "kubectl get ms -A"
        )
    spec = Spec.model_validate(found["spec"])
    if not drills_image(spec.image):
        raise SwitchboardError(
            f"ModelServer {setting.server} runs {spec.image}, in which no candidate is as bad as it says",
            f"pulumi config set --path switchboard:images.overrides.{setting.server} switchboard.dev/{IMAGE}:0.1.0, "
            "pulumi config set --path switchboard:releases.gate false, pulumi up",
        )
    return spec.model.name


def drills_image(image: str) -> bool:
    """Whether an image's name is that of the drills' one, whatever its registry and tag."""
    return re.search(rf"(^|/){IMAGE}([:@]|$)", image) is not None


async def drill(
    setting: Setting, candidate: Candidate, version: str, tell: Callable[[str], None], kube: Kube
) -> Outcome:
    """Release it, and say what became of it.

    Raises:
        SwitchboardError: the release was refused, or didn't come to an end.
    """
    most_s = setting.within_s + END_S + 2 * LEAD_S
    with tempfile.TemporaryDirectory(prefix="switchboard-drill-") as folder:
        file = Path(folder) / "requests.csv"
        async with _customers(setting, file, most_s) as running:
            await _wait(running, LEAD_S)
            release = f"drill-{candidate.name[:40]}-{secrets.token_hex(3)}"
            try:
                meta = {"name": release, "namespace": setting.namespace}
                await begin(kube, meta, _spec(setting, candidate, version))
                status = await _until_over(kube, release, setting, candidate, most_s, tell)
                await _wait(running, LEAD_S)
            finally:
                await _end(kube, release, setting)
        if status.phase is Phase.REFUSED:
            gate = "gate" in status.sentence
            raise SwitchboardError(
                f"{candidate.name} (version {version}) was refused: {status.sentence}",
                "drills are for what the offline gate would keep out: "
                "pulumi config set --path switchboard:releases.gate false, pulumi up"
                if gate
                else "put more questions a second: --rate",
            )
        return score(candidate, version, status, _read(file))


def _spec(setting: Setting, candidate: Candidate, version: str) -> Object:
    return {
        "server": setting.server,
        "version": int(version),
        "withinSeconds": setting.within_s,
        "keepWarmSeconds": WARM_S,
        "reason": f"drill: {candidate.what}",
    }


async def _end(kube: Kube, release: str, setting: Setting) -> None:
    """Nothing of it goes on, in whatever phase it was left: what is under way goes back first."""
    with suppress(Unreachable, ApiError):
        found = await kube.get_or_none(MODEL_RELEASES, release, setting.namespace)
        if found is not None:
            if not shown.parse(found)[1].phase.over:
                await _order_back(kube, release, setting)
            await kube.delete(MODEL_RELEASES, release, setting.namespace)


async def _order_back(kube: Kube, release: str, setting: Setting) -> None:
    await kube.patch(MODEL_RELEASES, release, {"spec": {"order": Order.ROLLBACK}}, setting.namespace)


async def _until_over(
    kube: Kube,
    release: str,
    setting: Setting,
    candidate: Candidate,
    most_s: float,
    tell: Callable[[str], None],
) -> Status:
    """Until the operator has nothing left to do for it. A bad one that nobody found doesn't stay with customers."""
    deadline, ordered, said = time.monotonic() + most_s, False, "nothing was heard of it"
    while time.monotonic() < deadline:
        with suppress(Unreachable):  # an API server that starts anew is no end of a drill
            found = await get(kube, release, setting.namespace)
            status = shown.parse(found)[1]
            said = f"{status.phase}, {status.weight} %: {status.sentence}"
            tell(said)
            if status.phase.over and not _held(found):
                return status
            missed = candidate.ends == "RolledBack" and status.phase in (Phase.PROMOTING, Phase.WARM)
            if missed and not ordered:
                await _order_back(kube, release, setting)
                ordered = True
        await asyncio.sleep(PERIOD_S)
    raise SwitchboardError(
        f"release {release} isn't over after {most_s:.0f} s: {said}",
        f"kubectl describe mr {release} -n {setting.namespace}",
    )


def _held(release: Object) -> bool:
    return FINALIZER in (release["metadata"].get("finalizers") or ())


@asynccontextmanager
async def _customers(
    setting: Setting, file: Path, most_s: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    """They ask until its end, when all that they asked is in the file."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "switchboard.cli", "loadtests", "chat", "--url", setting.url),
        *("--rate", f"{setting.rate_rps:g}", "--duration", f"{most_s:.0f}s", "--requests", str(file)),
        stdout=DEVNULL,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _wait(running: asyncio.subprocess.Process, seconds: float) -> None:
    """For so long, while customers ask.

    Raises:
        SwitchboardError: they have stopped.
    """
    try:
        await asyncio.wait_for(running.wait(), seconds)
    except TimeoutError:
        return
    said = (await running.stderr.read()).decode(errors="replace") if running.stderr is not None else ""
    raise SwitchboardError(f"nobody asks any more: {said.strip().splitlines()[-1] if said.strip() else ''}")


def _read(file: Path) -> list[Request]:
    with file.open(newline="") as rows:
        return read(rows)
