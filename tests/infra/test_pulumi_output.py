"""What Pulumi prints, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import pulumi_output
from infra.pulumi_output import Violation

OUTPUT = """\
Updating (local):

@ updating......
 ~  kubernetes:apps/v1:Deployment public-gateway updating (0s) [diff: ~spec]
 ~  kubernetes:apps/v1:Deployment public-gateway updating (0s) [diff: ~spec]; its controller has not seen it yet
@ updating....
 ~  kubernetes:apps/v1:Deployment public-gateway updated (5s) [diff: ~spec]; 1 of 1 replicas available
 +  kubernetes:core/v1:Service public-chat creating (0s)
 +  kubernetes:core/v1:Service public-chat created (0.1s)
 ++ kubernetes:core/v1:ConfigMap public-prometheus creating replacement (0s) [diff: ~data]
 -  kubernetes:core/v1:ConfigMap old deleted (0.01s)

Outputs:
    endpoints: {
        mlflow    : "http://127.96.172.144:5000"
    }

Resources:
    + 1 created
    ~ 1 updated
    - 1 deleted
    55 unchanged

Duration: 12s
"""


REFUSED = """\
Updating (local):
Loading policy packs...

@ updating....
 ~  kubernetes:apps/v1:StatefulSet public-chat updating (0s) [diff: ~metadata]
Policies:
    ❌ switchboard@v0.1.0 (local: infra/policy)
        - [mandatory]  data-region  (kubernetes:apps/v1:Deployment: public-gateway-cn-hongkong)
          Data that is bound to regions is in none but those.
          Deployment switchboard-serving/gateway-cn-hongkong of site public: it holds customer data
            → place it in one of these regions
        - [advisory]  style  (kubernetes:core/v1:Service: public-chat)
          Be nice.
          Service public-chat: it isn't
        - [mandatory]  limits  (kubernetes:apps/v1:StatefulSet: public-chat)
          Every container has limits.

Diagnostics:
  pulumi:pulumi:Stack (switchboard-local):
    error: update failed
""".splitlines()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "no output"),
        (["something odd", "  the end  "], "the end"),
        (["x", "error: no stack selected", "error: later"], "no stack selected"),
        (["    error: update failed"], "update failed"),
        (
            ["Diagnostics:", "  error: could not start:", "    line one", "    line two"],
            "could not start: line one line two",
        ),
        (["  error:", "    the reason", ""], "the reason"),
        (
            [
                " +  kubernetes:batch/v1:Job train creating (601s) error: 1 error occurred:",
                " +  kubernetes:batch/v1:Job train **creating failed** error: 1 error occurred:",
                "@ updating....",
                "Diagnostics:",
                "  pulumi:pulumi:Stack (switchboard-local):",
                "    error: update failed",
                "",
                "  kubernetes:batch/v1:Job (train):",
                "    error: 1 error occurred:",
                "    \t* Job core/train: not ready after 10 min: 0 of 1 completions, 1 failed tries",
                "",
                "Outputs:",
            ],
            "Job core/train: not ready after 10 min: 0 of 1 completions, 1 failed tries",
        ),
    ],
)
def test_the_reason_is_the_first_error_on_one_line(lines: list[str], reason: str) -> None:
    assert pulumi_output.reason(lines) == reason


@pytest.mark.parametrize(
    ("lines", "summary"),
    [
        (OUTPUT.splitlines(), "1 created, 1 updated, 1 deleted, 55 unchanged"),
        (["Resources:", "    58 unchanged", "", "Duration: 3s"], "58 unchanged"),
        (["Resources:", "    +-2 replaced", "    3 unchanged"], "3 unchanged"),
        ([" +  kubernetes:core/v1:Service 3 created", "no resources"], "done"),
        ([], "done"),
    ],
)
def test_the_summary_counts_changes(lines: list[str], summary: str) -> None:
    assert pulumi_output.summary(lines) == summary


def test_what_the_policies_refuse_is_found_once() -> None:
    assert pulumi_output.violations([*REFUSED, *REFUSED]) == [
        Violation(
            "data-region",
            "Deployment switchboard-serving/gateway-cn-hongkong of site public: it holds customer data",
            "place it in one of these regions",
        ),
        Violation("limits", "Every container has limits.", None),
    ]
    assert pulumi_output.violations(OUTPUT.splitlines()) == []


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            REFUSED,
            "policy data-region: Deployment switchboard-serving/gateway-cn-hongkong of site public: it holds customer"
            " data (and 1 more in /l)\n  → place it in one of these regions",
        ),
        (
            ["Updating (x):", "  error: no such thing"],
            "`pulumi up` failed: no such thing\n  → all of its output: /l",
        ),
    ],
)
def test_the_error_of_an_up(lines: list[str], told: str) -> None:
    assert str(pulumi_output.error(lines, Path("/l"))) == told
