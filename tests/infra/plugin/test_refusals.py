"""The server's words as the user reads them, and what a credential tells about itself."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.plugin.config import Config
from infra.plugin.refusals import explain, lapse, plain, unauthorized
from switchboard.kube import ApiError, Credentials

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "failed to create typed patch object (n/s; /v1, Kind=Service): .spec.prots: field not declared in schema",
            "spec.prots: field not declared in schema",
        ),
        (
            "failed to create typed patch object (n/c; /v1, Kind=ConfigMap): .data.a: expected string, "
            "got &value.valueUnstructured{Value:1}",
            "data.a: expected string, got 1",
        ),
        ("x: expected map, got &{[a b]}", "x: expected map, got a list"),
        ("x: expected list, got &map[a:1]", "x: expected list, got an object"),
        ('Deployment.apps "w" is invalid: [a: Required value,\n b: Required value]',
         "[a: Required value, b: Required value]"),
        ('configmaps "c" is forbidden: exceeded quota: q', 'configmaps "c" is forbidden: exceeded quota: q'),
        ("", ""),
    ],
)  # fmt: skip
def test_plain_words(message: str, said: str) -> None:
    assert plain(message) == said


@pytest.mark.parametrize(
    "value", ["&value.valueUnstructured{Value:123456}", "&{map[pin:123456]}", "&{[12}3 123456]}", "123456"]
)
def test_a_secret_s_value_is_not_said(value: str) -> None:
    said = f"failed to create typed patch object (n/s; /v1, Kind=Secret): .stringData.pin: expected string, got {value}"
    secret = {"kind": "Secret", "metadata": {"name": "s", "namespace": "n"}}
    assert explain(ApiError(500, "", said), secret) == (
        "Secret n/s: stringData.pin: expected string, got something else"
    )


@given(st.text())
def test_they_are_always_one_line(message: str) -> None:
    assert len(plain(message).splitlines()) <= 1


def token(expires: object) -> str:
    def part(claims: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': expires})}.x"


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (Credentials("s", token=token((NOW - HOUR).timestamp())), "its token expired at 2025-12-31 23:00 UTC"),
        (Credentials("s", token=token((NOW + HOUR).timestamp())), None),
        (Credentials("s", token=token("soon")), None),
        (Credentials("s", token=token(1e30)), None),
        (Credentials("s", token="opaque"), None),
        (Credentials("s", token="a.b.c"), None),
        (Credentials("s", client_cert="not a certificate"), None),
        (Credentials("s", token_file=Path("/nowhere/token")), "its token can't be read: No such file or directory"),
        (Credentials("s"), "it has neither token nor certificate"),
    ],
)  # fmt: skip
def test_what_is_over_about_a_credential(credentials: Credentials, why: str | None) -> None:
    assert lapse(credentials, NOW) == why


def test_a_kubeconfig_that_went_away_is_said_as_well() -> None:
    assert "can't read the kubeconfig /nowhere" in unauthorized(Config(kubeconfig="/nowhere"), NOW)
