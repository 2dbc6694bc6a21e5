"""What the operator's pod is told by its environment."""

from __future__ import annotations

import pytest

from operators.settings import PORT, Settings
from switchboard.errors import SwitchboardError

LEAST = {"POD_NAME": "operator-0", "POD_IP": "10.0.0.1", "POD_NAMESPACE": "core"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Settings("operator-0", "10.0.0.1", "core", None, PORT)),
        ({"PROMETHEUS_URL": "", "PORT": ""}, Settings("operator-0", "10.0.0.1", "core", None, PORT)),
        (
            {"PROMETHEUS_URL": "http://prometheus:9090", "PORT": "9000"},
            Settings("operator-0", "10.0.0.1", "core", "http://prometheus:9090", 9000),
        ),
        (
            {"PROMETHEUS_URL": "https://prometheus", "PORT": "65535", "HOME": "/"},
            Settings("operator-0", "10.0.0.1", "core", "https://prometheus", 65535),
        ),
    ],
)
def test_what_is_told(more: dict[str, str], expected: Settings) -> None:
    assert Settings.from_environ({**LEAST, **more}) == expected


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "has no POD_NAME, POD_IP, POD_NAMESPACE"),
        ({**LEAST, "POD_IP": ""}, "has no POD_IP"),
        (
            {**LEAST, "PROMETHEUS_URL": "prometheus:9090"},
            "PROMETHEUS_URL must be an address .* 'prometheus:9090'",
        ),
        ({**LEAST, "PROMETHEUS_URL": "http://"}, "PROMETHEUS_URL must be an address"),
        ({**LEAST, "PROMETHEUS_URL": "http://[::1"}, "PROMETHEUS_URL must be an address"),
        ({**LEAST, "PROMETHEUS_URL": "http://prometheus:http"}, "PROMETHEUS_URL must be an address"),
        ({**LEAST, "PORT": "http"}, "PORT must be a number .* 'http'"),
        ({**LEAST, "PORT": "0"}, "PORT must be a number from 1 to 65535"),
        ({**LEAST, "PORT": "65536"}, "PORT must be a number from 1 to 65535"),
        ({**LEAST, "PORT": "-1"}, "PORT must be a number"),
        ({**LEAST, "PORT": "٣"}, "PORT must be a number"),
    ],
)
def test_what_is_wrong_is_said(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SwitchboardError, match=words):
        Settings.from_environ(environ)
