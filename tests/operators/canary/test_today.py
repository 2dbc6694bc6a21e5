"""Today's traffic, by a real Prometheus with the samples of an hour that was made up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from operators.canary import today
from operators.canary.simulation.world import BASE
from operators.canary_cli import app
from switchboard.errors import SwitchboardError
from tests.operators.prometheus import prometheus

EVERY_S = 10
AHEAD_S = 1800
"""So far from now there are samples, too: however late a question is asked, its last ten minutes are full."""
REPLICA = 'model_server="chat",tier="core",pod="chat-{}"'
CUSTOMER = f'{REPLICA},traffic="customer"'
PER_S = {
    'envoy_http_local_rate_limit_enabled_total{envoy_local_http_ratelimit_prefix="chat",pod="g"}': 40.0,
    'envoy_cluster_upstream_rq_retry_total{envoy_cluster_name="chat",pod="g"}': 0.3,
    'envoy_cluster_upstream_rq_xx_total{envoy_cluster_name="chat",envoy_response_code_class="5",pod="g"}': 0.1,
}
"""(As OpenMetrics wants counters to be named.)"""


def samples() -> str:
    """Two replicas that answer 20 requests/s each: a tenth for a person, a twentieth late."""
    per_s = dict(PER_S)
    for number in (1, 2):
        own = CUSTOMER.format(number)
        per_s |= {
            f'switchboard_requests_total{{{own},code="200",intent="card_lost"}}': 18.0,
            f'switchboard_requests_total{{{own},code="200",intent="handover"}}': 2.0,
            f'switchboard_request_seconds_count{{{own},code="200"}}': 20.0,
            f'switchboard_request_seconds_bucket{{{own},code="200",le="0.3"}}': 19.0,
        }
    now = int(time.time())
    times = range(now - 3600, now + AHEAD_S, EVERY_S)
    lines = []
    for name, rate in per_s.items():
        plain = name.replace("_total{", "{") if name.startswith("envoy") else name
        lines += [f"{plain} {rate * (at - now + 7200):.3f} {at}" for at in times]
    for number in (1, 2):
        started = f"process_start_time_seconds{{{REPLICA.format(number)}}}"
        lines += [f"{started} 1000 {at}" for at in times]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("today"), samples()) as found:
        yield found


def test_what_it_says(url: str) -> None:
    found = today.ask(url, "chat", BASE)
    assert found.rps == pytest.approx(40, rel=0.05)
    assert found.rates["failed"] == pytest.approx(0.01, rel=0.05)
    assert found.rates["handoff"] == pytest.approx(0.1, rel=0.05)
    assert found.rates["slow"] == pytest.approx(0.05, rel=0.05)
    assert found.rates["restarts"] == 0
    assert found.rates["grew"] == BASE["grew"], "what isn't known is as usual"
    assert (found.champion_pods, found.candidate_pods) == (2, 1)


def test_a_plan_for_today(url: str) -> None:
    done = CliRunner().invoke(app, ["plan", "--from-prometheus", url, "--rate", "grew=0", "-o", "json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    rates = {one["name"]: one["rate"] for one in document["metrics"]}
    assert rates["handoff"] == pytest.approx(0.1, rel=0.05)
    assert rates["grew"] == 0


@pytest.mark.parametrize(
    ("service", "address", "says"),
    [
        ("voice", None, "no requests of voice in the last 10 min"),
        ("chat", "http://127.37.0.254:9", "Prometheus at http://127.37.0.254:9"),
    ],
)
def test_what_cant_be_known(url: str, service: str, address: str | None, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        today.ask(address or url, service, BASE)


def test_traffic_is_to_be_named() -> None:
    done = CliRunner().invoke(app, ["plan"])
    assert "--rps, or --from-prometheus" in " ".join(done.output.split())


def test_nonsense_is_left_out() -> None:
    odd = [
        {"metric": {"signal": "rps"}, "value": [1, "50"]},
        {"metric": {"signal": "handoff"}, "value": [1, "NaN"]},
        {"metric": {"signal": "slow"}, "value": [1]},
        {"metric": {}, "value": [1, "9"]},
    ]
    found = today.read("chat", odd, BASE)
    assert (found.rps, found.rates) == (50, dict(BASE))
