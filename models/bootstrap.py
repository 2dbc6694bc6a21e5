"""The Job that makes sure there is a first champion: `python -m models.bootstrap --model chat-intent --alias champion`.

It succeeds when the alias means a whole version: at once where it does already, else after training, evaluating and
registering one. Run again, interrupted anywhere, or run twice at once, it ends with one champion: a version is made
whole before the alias is set, and of several first versions the lowest wins, whoever made it.
Exit codes: 0 there is a champion, 1 not (the log's last line says why and what to do), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from models import rest
from models.classifier import FILES
from models.loading import parse
from models.rest import BOOTSTRAP_TAG, Denied, NotFound, Registry, RegistryError, Unreachable, Version
from switchboard.errors import SwitchboardError

log = logging.getLogger("models.bootstrap")


@dataclass(frozen=True)
class Step:
    """What is to be done: nothing (`done`), point the alias at `point_at`, or train."""

    done: bool = False
    point_at: str | None = None


def next_step(champion: str | None, versions: Sequence[Version]) -> Step:
    """The decision: `champion` is the version that the alias means, if any; `versions` are all there are."""
    if champion is not None:
        return Step(done=True)
    first = winner(versions)
    return Step(point_at=first.version) if first else Step()


def winner(versions: Sequence[Version]) -> Version | None:
    """Of the versions made by this Job that are whole, the lowest."""
    whole = [
        version
        for version in versions
        if version.tags.get(BOOTSTRAP_TAG) == "true"
        and version.status == "READY"
        and set(version.files()) == set(FILES)
    ]
    return min(whole, key=lambda version: int(version.version), default=None)


def bootstrap(model: str, alias: str, *, tracking_uri: str, timeout_s: float) -> str:
    """Make sure that `model@alias` exists; gives the version that it means.

    Raises:
        SwitchboardError: MLflow wasn't reachable within `timeout_s`, or refused.
    """
    parse(f"models:/{model}@{alias}")
    registry = Registry(tracking_uri)
    deadline = time.monotonic() + timeout_s
    _wait(registry, deadline)
    try:
        if (done := _settle(registry, model, alias, tracking_uri)) is not None:
            return done
        made = _make(model, tracking_uri)
        settled = _settle(registry, model, alias, tracking_uri)
        if settled is None:
            raise SwitchboardError(f"{model} version {made} was registered, but the registry doesn't list it")
    except Denied as error:
        raise SwitchboardError(str(error), error.next_step) from error
    except RegistryError as error:
        raise SwitchboardError(f"MLflow at {tracking_uri}: {error}", "run the Job again") from error
    if settled != made:
        log.info("another run was first: version %s is not needed and is removed", made)
        from models.registry import delete_version

        delete_version(model, made, tracking_uri=tracking_uri)
    return settled


def _wait(registry: Registry, deadline: float) -> None:
    started = time.monotonic()
    said = started
    pause_s = 0.2
    while not registry.healthy():
        now = time.monotonic()
        if now >= deadline:
            raise SwitchboardError(
                f"MLflow at {registry.uri} wasn't reachable within {now - started:.0f} s",
                "look at the mlflow pod: kubectl -n switchboard-core get pods",
            )
        if now - said >= 10 or said == started:
            log.info("waiting for MLflow at %s (%.0f s)", registry.uri, now - started)
            said = now
        time.sleep(min(pause_s, max(0.0, deadline - now)))
        pause_s = min(2.0, pause_s * 1.5)


def _settle(registry: Registry, model: str, alias: str, tracking_uri: str) -> str | None:
    """Point the alias where it belongs; None where there is nothing to point at."""
    champion = _champion(registry, model, alias)
    step = next_step(champion, registry.versions(model))
    if step.done:
        log.info("%s@%s is version %s", model, alias, champion)
        return champion
    if step.point_at is None:
        return None
    from models.registry import set_alias

    set_alias(model, alias, step.point_at, tracking_uri=tracking_uri)
    log.info("%s@%s is now version %s", model, alias, step.point_at)
    return step.point_at


def _champion(registry: Registry, model: str, alias: str) -> str | None:
    for attempt in range(5):
        try:
            return registry.version_of_alias(model, alias).version
        except NotFound:
            return None
        except Unreachable:
            if attempt == 4:
                raise
            time.sleep(0.5 * 2**attempt)
    return None


def _make(model: str, tracking_uri: str) -> str:
    # Only now, as these imports cost seconds that a second run needn't spend.
    from models import evaluation, registry, training

    params = training.Params()
    data = training.load("corpus", params)
    log.info(
        "training %s on %d texts (data %s)", model, len(data.train) + len(data.validation), data.sha256[:12]
    )
    trained = training.train(data, params)
    log.info("trained in %.1f s, %d features", trained.seconds, trained.features)
    reports = evaluation.evaluate(trained.classifier, data.tests)
    for one in reports:
        log.info(
            "%s: accuracy %s, coverage %s", one.name, one.overall.answered_accuracy, one.overall.coverage
        )
    made = registry.register(trained, reports, name=model, tracking_uri=tracking_uri, bootstrap=True)
    log.info("registered %s version %s, run %s", model, made.version, made.run_id)
    return made.version


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.bootstrap", description=__doc__)
    parser.add_argument("--model", default="chat-intent")
    parser.add_argument("--alias", default="champion")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="how long to wait for MLflow")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        bootstrap(options.model, options.alias, tracking_uri=rest.tracking_uri(), timeout_s=options.timeout_s)
    except SwitchboardError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
