"""What a chat replica measures of itself, as Prometheus scrapes it at `/metrics`.

The names carry no service in them: every model server counts under the same ones, and the scrape's labels tell them
apart, so that one query serves all of them. BentoML's own metrics (`bentoml_service_*`) are beside them.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
"""0.3 s is the service level of an answer."""

NO_INTENT: Final = "none"
"""The `intent` of a request that wasn't answered."""

CUSTOMER: Final = "customer"
SHADOW: Final = "shadow"
"""The values of `traffic`: a customer waits for the answer, or a gateway compares replicas and nobody does."""


class Metrics:
    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests = Counter(
            "switchboard_requests",
            "Requests answered, by HTTP status, by what the customer wanted, and by whether one waits for it.",
            ["code", "intent", "traffic"],
            registry=registry,
        )
        self.seconds = Histogram(
            "switchboard_request_seconds",
            "Time from a request's arrival to its answer, by HTTP status and by whether a customer waits for it.",
            ["code", "traffic"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.in_flight = Gauge(
            "switchboard_requests_in_flight", "Requests being answered now.", registry=registry
        )
        self.max_concurrency = Gauge(
            "switchboard_max_concurrency", "Requests that this replica answers at once.", registry=registry
        )
        self.replays = Counter(
            "switchboard_replays", "Turns that were answered from their first answer.", registry=registry
        )
        self.fallbacks = Counter(
            "switchboard_fallbacks",
            "Answers that weren't the model's: what it said is no intent that has an answer.",
            ["traffic"],
            registry=registry,
        )
        # There from the first scrape on: a number that isn't there is no zero to who compares replicas.
        for traffic in (CUSTOMER, SHADOW):
            self.fallbacks.labels(traffic)
            self.seconds.labels("200", traffic)
        self.model_info = Gauge(
            "switchboard_model_info",
            "1 for the model in use; source says whether the registry or the copy on disk was asked.",
            ["model", "version", "source"],
            registry=registry,
        )
        self.model_load_seconds = Gauge(
            "switchboard_model_load_seconds", "Time that loading the model took.", registry=registry
        )
        self.model_load_failures = Counter(
            "switchboard_model_load_failures", "Tries to load the model that failed.", registry=registry
        )
        self.ready = Gauge("switchboard_ready", "1 with a model loaded and not draining.", registry=registry)
