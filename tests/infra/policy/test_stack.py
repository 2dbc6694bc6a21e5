"""The policies over a whole stack, as `switchboard up` asks them before a site is up."""

from __future__ import annotations

import pytest

from infra import config
from infra.declared import declare
from infra.policy.stack import check, exempt
from switchboard.api.scaling import Scaling
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
    assert "(and 1 more)" in caught.value.what, "and of its model server's Deployment"
    assert caught.value.next_step


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_nothing_that_is_committed_needs_an_exception(stack: str) -> None:
    assert exempt(declare(config.load(stack), name=stack)) == []


def few(reason: str | None) -> config.Stack:
    """The local stack with a chat that may come down to one replica, which starts quickly."""
    stack = config.load("local")
    scaling = Scaling(min_replicas=1, max_replicas=6)
    server = stack.model_servers[0].model_copy(update={"scaling": scaling, "availability_exception": reason})
    return stack.model_copy(update={"model_servers": (server,)})


def test_a_model_server_of_one_replica_is_refused() -> None:
    with pytest.raises(
        SwitchboardError, match="spare-replica: ModelServer switchboard-serving/chat"
    ) as caught:
        check(few(None), "local")
    assert "it may come to have one replica" in caught.value.what
    assert "`scaling.minReplicas: 2`" in (caught.value.next_step or "")


def test_unless_it_says_why() -> None:
    stack = few("nobody asks it before it is rolled out")
    check(stack, "local")
    (found,) = exempt(declare(stack, name="local"))
    assert (found.rule, found.reason) == ("spare-replica", "nobody asks it before it is rolled out")
    assert found.resource.startswith("ModelServer switchboard-serving/chat of site public")
