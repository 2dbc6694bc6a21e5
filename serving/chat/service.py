"""The chat service as BentoML knows it: its life cycle, probes and metrics around the application of `app`.

The application is mounted rather than written as a BentoML API method: the contract (headers in, JSON errors, 503 where
it is busy) is then ours to the last byte, and no request body reaches BentoML's own decoders.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.server.metrics.prometheus import PrometheusClient
from starlette.exceptions import HTTPException

from models import loading
from serving.answers import Answers
from serving.chat.app import ChatApp
from serving.chat.metrics import Metrics
from serving.chat.replica import Replica
from serving.chat.settings import Settings

LOAD_TIMEOUT_S = 10.0
"""One try; the replica goes on trying."""

# One process serves, so metrics are kept in memory: BentoML's default shares them through files between workers.
BentoMLContainer.metrics_client.set(PrometheusClient(multiproc=False))

settings = Settings.from_environ(os.environ)


def _load() -> loading.LoadedModel:
    return loading.load(
        settings.model_uri,
        settings.model_cache_dir,
        timeout_s=LOAD_TIMEOUT_S,
        tracking_uri=settings.tracking_uri or None,
    )


replica = Replica(_load, Metrics(), max_concurrency=settings.max_concurrency)


# The application bounds its own work (body, admission); BentoML's timeout is the last resort. Its access log would
# cost more than the answer; our metrics count.
@bentoml.asgi_app(ChatApp(replica, Answers.load(), settings).starlette(), path="/", name="chat")
@bentoml.service(
    name="chat",
    workers=1,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": "/"},
)
class Chat:
    """Answers customers' questions with the registered model `MODEL_URI`."""

    @bentoml.on_startup
    async def start(self) -> None:
        replica.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        replica.close()

    async def __is_ready__(self) -> bool:
        if reason := replica.not_ready_because():
            raise HTTPException(503, reason)
        return True


SERVICE: Any = Chat
"""What BentoML's decorators made of the class: a `bentoml.Service`."""
