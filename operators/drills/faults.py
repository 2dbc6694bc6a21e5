"""What is wrong with a candidate's process, done in the process: a classifier that crashes, waits, leaks or refuses.

A faulty classifier is saved with its fault beside its settings, and only a process that has called `install` knows it
for one when it is read again.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from models.classifier import SETTINGS_FILE, IntentClassifier, LinearModel, Prediction, Settings

if TYPE_CHECKING:
    from operators.drills.candidates import Fault

KEY: Final = "drill"
EXIT_CODE: Final = 70
WARM_UP: Final = 16
"""So many texts it answers as any: a replica puts some to its model by itself before it takes the first question."""
_WORK_S: Final = 0.015
"""Of a processor: what a replica takes for a slow model it asks in a thread, so that its probes are still answered."""


class Refusing(Exception):
    """It doesn't answer this one."""


class FaultyClassifier(IntentClassifier):
    """A classifier with a fault."""

    def __init__(self, model: LinearModel, settings: Settings, fault: Fault) -> None:
        super().__init__(model, settings)
        self.fault = fault
        self._asked = 0
        self._kept: list[bytes] = []

    def save(self, directory: Path) -> None:
        super().save(directory)
        path = directory / SETTINGS_FILE
        settings = json.loads(path.read_text())
        settings[KEY] = self.fault.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Raises Refusing, or doesn't return, where that is the fault."""
        fault = self.fault
        self._asked += len(texts)
        if fault.waits_seconds:
            until = time.thread_time() + _WORK_S
            while time.thread_time() < until:
                pass
        if self._asked > WARM_UP:
            time.sleep(fault.waits_seconds)
            if fault.leaks_kib:
                # Random, since pages of zeros cost nothing; of each text its own.
                self._kept += [os.urandom(fault.leaks_kib << 10) for _ in texts]
            if fault.exits_after is not None and self._asked > WARM_UP + fault.exits_after:
                os._exit(EXIT_CODE)
            if any(random.random() < fault.fails for _ in texts):  # noqa: S311
                raise Refusing(f"a drill's candidate refuses {fault.fails:.1%} of the questions")
        return super().predict(texts)


def install() -> None:
    """From now on this process takes a faulty classifier for what it is."""
    as_it_is = IntentClassifier.of

    def of(contents: Mapping[str, bytes]) -> IntentClassifier:
        made = as_it_is(contents)
        raw = json.loads(contents[SETTINGS_FILE]).get(KEY)
        if not raw:
            return made
        from operators.drills.candidates import Fault

        fault = Fault.model_validate(raw)
        if fault.exits_at_load:
            os._exit(EXIT_CODE)
        return FaultyClassifier(made.model, made.settings, fault)

    IntentClassifier.of = staticmethod(of)  # type: ignore[method-assign]
