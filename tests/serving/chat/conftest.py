"""One replica that serves the champion, for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.chat.replicas import ReplicaProcess, replica
from tests.serving.conftest import Champion


@pytest.fixture(scope="session")
def chat(champion: Champion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaProcess]:
    """A replica that is ready; tests must leave it so."""
    with replica(tmp_path_factory.mktemp("replica"), **champion.env) as running:
        running.wait_ready()
        yield running
