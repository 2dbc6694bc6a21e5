"""The outputs of a stack, as other tools read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from switchboard.data import DataClass
from switchboard.errors import SwitchboardError
from switchboard.outputs import StackOutputs


def outputs() -> dict[str, Any]:
    where = {"region": "cn-shanghai", "prometheus": "http://p:9090"}
    return {
        "endpoints": {
            "gateways": {"public": "http://g:8080"},
            "edges": {"cn-beijing": "http://e:8080"},
            "mlflow": "http://m:5000",
            "prometheus": "http://p:9090",
            "alertmanager": "http://a:9093",
        },
        "sites": {
            "private": {**where, "role": "private", "namespace": "core", "context": "c", "kubeconfig": None},
            "public": {**where, "role": "public", "namespace": "serving", "context": "d", "later": 1},
        },
        "modelServers": {
            "chat": {
                "path": "/v1/chat",
                "model": "chat-intent",
                "alias": "champion",
                "image": "i@sha256:0",
                "sites": ["public"],
                "dataClass": "customer",
                "dataRegions": ["cn-shanghai"],
            }
        },
    }


def test_they_are_read_and_a_newer_programs_keys_do_no_harm() -> None:
    read = StackOutputs.parse(json.dumps({**outputs(), "news": {"x": 1}}))
    assert read.endpoints.gateways == {"public": "http://g:8080"}
    assert read.sites["private"].kubeconfig is None
    assert read.model_servers["chat"].data_class is DataClass.CUSTOMER
    assert read.model_servers["chat"].edges == ()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{}", "endpoints: Field required"),
        ("", "they: Invalid JSON"),
        (json.dumps({**outputs(), "sites": {"public": {}}}), "sites.public.role: Field required"),
    ],
)
def test_what_is_no_stacks_outputs_is_told(text: str, word: str) -> None:
    with pytest.raises(SwitchboardError) as caught:
        StackOutputs.parse(text)
    assert word in str(caught.value)
    assert "`pulumi up` applies it" in str(caught.value)
