"""Jobs and CronJobs: completions, failures and what is done about them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from switchboard.kube import JOBS, PODS, Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.manifests import (
    CRON_JOBS,
    FOREVER,
    condition,
    job,
    mount,
    over,
    phase,
    ready,
    sh,
    status_of,
)
from tests.infra.local.behaviours.scenario import behaviour

INDEXED = {"completionMode": "Indexed"}


def done(one: Object) -> bool:
    return condition(one, "Complete") == "True"


def failed(one: Object) -> bool:
    return condition(one, "Failed") == "True"


def reason(one: Object) -> str:
    return next(str(c["reason"]) for c in one["status"]["conditions"] if c["type"] == "Failed")


async def run(space: Space, body: Object, holds: Any = done) -> Object:
    await space.create(JOBS, body)
    return await space.until(body["metadata"]["name"], holds, JOBS)


@behaviour("[sig-apps] Job should run a job to completion when tasks succeed")
async def test_succeeds(space: Space) -> None:
    ended = await run(space, job("j", "exit 0", parallelism=2, completions=4, backoffLimit=6))
    assert ended["status"]["succeeded"] == 4


@behaviour(
    "[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted "
    "[Conformance]"
)
async def test_restarted_in_place(space: Space) -> None:
    volumes = {"volumes": [{"name": "v", "emptyDir": {}}]}
    container = sh("test -e /v/f && exit 0; touch /v/f; exit 1", volumeMounts=[mount("v", "/v")])
    ended = await run(
        space, job("j", container, restart="OnFailure", completions=2, parallelism=2, pod=volumes)
    )
    assert ended["status"]["succeeded"] == 2
    pods = await space.until_all(lambda pods: len(pods) == 2 and all(over(p) for p in pods))
    assert [status_of(p)["restartCount"] for p in pods] == [1, 1]


@behaviour("[sig-apps] Job should fail to exceed backoffLimit")
async def test_back_off_limit(space: Space) -> None:
    ended = await run(space, job("j", "exit 1", backoffLimit=0), failed)
    assert reason(ended) == "BackoffLimitExceeded"
    assert len(space.all()) == 1


@behaviour("[sig-apps] Job should fail when exceeds active deadline")
async def test_deadline(space: Space) -> None:
    ended = await run(space, job("j", FOREVER, activeDeadlineSeconds=1), failed)
    assert reason(ended) == "DeadlineExceeded"
    await space.until_all(lambda pods: not pods)


@behaviour(
    "[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname "
    "[Conformance]"
)
async def test_indexed(space: Space) -> None:
    body = job("j", "echo $JOB_COMPLETION_INDEX $(hostname)", **INDEXED, completions=3, parallelism=3)
    ended = await run(space, body)
    assert ended["status"]["completedIndexes"] == "0-2"
    out = sorted([await space.log(p["metadata"]["name"]) for p in space.all()])
    assert out == ["0 j-0\n", "1 j-1\n", "2 j-2\n"]


@behaviour(
    "[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex "
    "[Conformance]",
    "[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy "
    "[Conformance]",
)
async def test_each_index(space: Space) -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    script = "[ $JOB_COMPLETION_INDEX = 1 ] && exit 42; exit 0"
    body = job("j", script, **INDEXED, completions=3, parallelism=3, backoffLimitPerIndex=2)
    ended = await run(space, body | {"spec": {**body["spec"], "podFailurePolicy": {"rules": [rule]}}}, failed)
    assert (ended["status"]["completedIndexes"], ended["status"]["failedIndexes"]) == ("0,2", "1")


@behaviour(
    "[sig-apps] Job should terminate job execution when the number of failed indexes exceeds "
    "maxFailedIndexes [Conformance]"
)
async def test_too_many_failed_indexes(space: Space) -> None:
    more = {"backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "completions": 10, "parallelism": 2}
    ended = await run(space, job("j", "exit 1", **INDEXED, **more), failed)
    assert reason(ended) == "MaxFailedIndexesExceeded"


@behaviour(
    "[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early "
    "[Conformance]"
)
async def test_fails_early(space: Space) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}}
    ended = await run(space, job("j", "exit 7", backoffLimit=6, podFailurePolicy={"rules": [rule]}), failed)
    assert reason(ended) == "PodFailurePolicy"
    assert len(space.all()) == 1


@behaviour(
    "[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget "
    "condition [Conformance]"
)
async def test_eviction_is_no_failure(space: Space) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    script = "trap 'exit 1' TERM; while :; do sleep 0.1; done"
    body = job("j", script, backoffLimit=0, podFailurePolicy={"rules": [rule]})
    await space.create(JOBS, body)
    (first,) = await space.until_all(lambda pods: len(pods) == 1 and ready(pods[0]))
    await space.evict(first["metadata"]["name"])
    await space.until_all(
        lambda pods: any(ready(p) and p["metadata"]["uid"] != first["metadata"]["uid"] for p in pods)
    )
    assert not failed(await space.get("j", JOBS))
    assert condition(space.seen(first)[-1], "DisruptionTarget") == "True"


@behaviour(
    "[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain "
    "pending [Conformance]"
)
async def test_success_policy(space: Space) -> None:
    script = f"[ $JOB_COMPLETION_INDEX = 0 ] && exit 0; {FOREVER}"
    policy = {"rules": [{"succeededIndexes": "0"}]}
    ended = await run(space, job("j", script, **INDEXED, completions=2, parallelism=2, successPolicy=policy))
    assert condition(ended, "SuccessCriteriaMet") == "True"
    await space.until_all(lambda pods: len([p for p in pods if phase(p) != "Succeeded"]) == 0)


@behaviour(
    "[sig-apps] Job should not create pods when created in suspend state",
    "[sig-apps] Job should delete pods when suspended",
)
async def test_suspended(space: Space) -> None:
    await space.create(JOBS, job("j", FOREVER, suspend=True))
    await space.until("j", lambda j: condition(j, "Suspended") == "True", JOBS)
    assert space.all() == []
    await space.patch("j", {"spec": {"suspend": False}}, JOBS)
    await space.until("j", lambda j: j["status"].get("ready") == 1, JOBS)
    await space.patch("j", {"spec": {"suspend": True}}, JOBS)
    await space.until_all(lambda pods: not pods)


@behaviour(
    "[sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]",
    "[sig-apps] Job should delete a job [Conformance]",
)
async def test_orphans_and_removal(space: Space) -> None:
    await space.create(JOBS, job("j", FOREVER, parallelism=2))
    pods = await space.until_all(lambda pods: len(pods) == 2 and all(ready(p) for p in pods))
    made, name = await space.get("j", JOBS), pods[0]["metadata"]["name"]
    await space.patch(name, {"metadata": {"ownerReferences": None}})
    adopted = await space.until(
        name,
        lambda p: (
            p["metadata"].get("ownerReferences")
            and any(not v["metadata"].get("ownerReferences") for v in space.seen(p))
        ),
    )
    assert adopted["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    await space.patch(name, {"metadata": {"labels": None}})
    released = await space.until(name, lambda p: not p["metadata"].get("ownerReferences"))
    assert not released["metadata"].get("labels")
    await space.until_all(
        lambda pods: len([p for p in pods if ready(p) and p["metadata"].get("ownerReferences")]) == 2
    )
    await space.delete("j", JOBS, propagation="Foreground")
    await space.gone("j", JOBS)
    (left,) = await space.kube.list(PODS, space.name)
    assert (left["metadata"]["name"], ready(left)) == (name, True), "it is the Job's no more"
    await space.delete(name)
    await space.gone(name)


@behaviour("[sig-apps] TTLAfterFinished job should be deleted once it finishes after TTL seconds")
async def test_time_to_live(space: Space) -> None:
    await run(space, job("j", "exit 0", ttlSecondsAfterFinished=1))
    await space.gone("j", JOBS)


def cron(name: str, script: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job("", script)["spec"]}, **spec},
    }


def jobs_of(space: Space, name: str) -> list[Object]:
    return [
        j for j in space.all(JOBS) if (j["metadata"].get("ownerReferences") or [{}])[0].get("name") == name
    ]


@behaviour(
    "[sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]",
    "[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Conformance] [Slow]",
    "[sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]",
    "[sig-apps] CronJob should not schedule jobs when suspended [Conformance] [Slow]",
    "[sig-apps] CronJob should set the cronjob-scheduled-timestamp annotation on a job",
    long=True,
)
async def test_by_the_clock(space: Space, begun: asyncio.Event) -> None:
    """One real minute for all: a Job of the last minute is under way already when the next is due.

    Or several: minutes may have gone by when the tests beside it let this one look again.
    """
    policies = ("Allow", "Forbid", "Replace")
    for policy in policies:
        # Suspended: a minute that ends before the Jobs under way are known would start more, rightly.
        await space.create(CRON_JOBS, cron(policy.lower(), FOREVER, concurrencyPolicy=policy, suspend=True))
        made = await space.get(policy.lower(), CRON_JOBS)
        owner = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": policy.lower(),
            "uid": made["metadata"]["uid"],
            "controller": True,
        }
        body = job(f"{policy.lower()}-before", FOREVER)
        body["metadata"]["ownerReferences"] = [owner]
        before = await space.create(JOBS, body)
        known = {
            "kind": "Job",
            "name": before["metadata"]["name"],
            "namespace": space.name,
            "apiVersion": "batch/v1",
        }
        active = {"status": {"active": [{**known, "uid": before["metadata"]["uid"]}]}}
        await space.patch(policy.lower(), active, CRON_JOBS, subresource="status")
    await space.create(CRON_JOBS, cron("suspended", FOREVER, suspend=True))
    for policy in policies:
        await space.patch(policy.lower(), {"spec": {"suspend": False}}, CRON_JOBS)
    begun.set()
    await space.until_all(lambda _: len(jobs_of(space, "allow")) >= 2, JOBS, timeout_s=300)
    await space.until_all(
        lambda _: (
            [j["metadata"]["name"] for j in jobs_of(space, "replace")] not in ([], ["replace-before"])
            and len(jobs_of(space, "replace")) == 1
        ),
        JOBS,
    )
    assert [j["metadata"]["name"] for j in jobs_of(space, "forbid")] == ["forbid-before"]
    assert jobs_of(space, "suspended") == []
    assert any(j["metadata"]["name"] == "allow-before" for j in jobs_of(space, "allow")), "it goes on"
    for new in (j for j in jobs_of(space, "allow") if j["metadata"]["name"] != "allow-before"):
        at = new["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
        assert datetime.fromisoformat(at.replace("Z", "+00:00")).second == 0


@behaviour(
    "[sig-apps] CronJob should support CronJob API operations [Conformance]",
    "[sig-api-machinery] Garbage collector should delete jobs and pods created by cronjob",
)
async def test_by_hand(space: Space) -> None:
    """`kubectl create job --from` runs a suspended one's Job now."""
    await space.create(CRON_JOBS, cron("c", "echo by hand", suspend=True))
    await space.kubectl("create", "job", "--from=cronjob/c", "now")
    await space.until("now", done, JOBS)
    (ran,) = await space.until_all(lambda pods: len(pods) == 1)
    assert await space.log(ran["metadata"]["name"]) == "by hand\n"
    await space.delete("c", CRON_JOBS, propagation="Background")
    await space.gone("now", JOBS)
    await space.until_all(lambda pods: not pods)
