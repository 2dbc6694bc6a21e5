"""The policies over a whole stack, as `switchboard up` asks them before a site is up."""

from __future__ import annotations

import pytest

from infra import config
from infra.declared import declare
from infra.policy.stack import check, exempt
from switchboard.errors import SwitchboardError


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_the_committed_stacks_pass(stack: str) -> None:
    check(config.load(stack), stack)


def test_a_stack_that_puts_data_where_it_must_not_be_is_refused_with_the_reason() -> None:
    """As an edge location in a region that the stack file doesn't allow the customers' words in."""
    stack = config.load("local")
    servers = tuple(
        each.model_copy(update={"data_regions": ("cn-shenzhen", "cn-beijing")})
        for each in stack.model_servers
    )
    with pytest.raises(SwitchboardError) as caught:
        check(stack.model_copy(update={"model_servers": servers}), "local")
    assert caught.value.what.startswith("policy data-region: ")
    assert "gateway-cn-hongkong of site public" in caught.value.what
    assert "(and 1 more)" in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_of_what_is_served_only_an_edge_s_fallback_waits_for_a_person(stack: str) -> None:
    """A lost node costs the core a replica, and the others serve; an edge's is lost with all that asks it."""
    loaded = config.load(stack)
    found = exempt(declare(loaded, name=stack))
    edges = {edge.region for site in loaded.sites for edge in site.edges}
    assert edges and len(found) == len(edges)
    for one in found:
        assert one.rule == "recovery-budget"
        assert any(one.resource.startswith(f"StatefulSet switchboard-serving/chat-{edge} ") for edge in edges)
        assert "only the gateway of that edge asks" in one.reason


def test_a_model_server_of_one_replica_is_refused() -> None:
    stack = config.load("local")
    servers = tuple(each.model_copy(update={"replicas": 1}) for each in stack.model_servers)
    with pytest.raises(
        SwitchboardError, match="recovery-budget: StatefulSet switchboard-serving/chat"
    ) as caught:
        check(stack.model_copy(update={"model_servers": servers}), "local")
    assert "it has no other replica" in caught.value.what
