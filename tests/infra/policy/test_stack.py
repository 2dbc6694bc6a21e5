"""The policies over a whole stack, as `switchboard up` asks them before a site is up."""

from __future__ import annotations

import pytest

from infra import config
from infra.policy.stack import check
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
