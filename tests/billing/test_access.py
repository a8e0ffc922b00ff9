"""Who may do what, as pure rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.access import Capability, MembersSee, Principal, Through, require, require_sight
from billing.errors import Forbidden

CAPABILITIES = st.frozensets(st.sampled_from(Capability))
NAMES = st.sampled_from(["ana", "bob"])


def somebody(capabilities: frozenset[Capability], customer_id: str | None = "ana") -> Principal:
    return Principal("acme", "someone", capabilities, Through.TOKEN, customer_id)


def is_let(principal: Principal, capability: Capability) -> bool:
    try:
        require(principal, capability)
    except Forbidden:
        return False
    return True


def sees(principal: Principal, customer_id: str | None, members_see: MembersSee) -> bool:
    try:
        require_sight(principal, customer_id, members_see)
    except Forbidden:
        return False
    return True


@given(CAPABILITIES, st.sampled_from(Capability))
def test_who_has_a_capability_or_administers_may(capabilities: frozenset[Capability], asked: Capability) -> None:
    assert is_let(somebody(capabilities), asked) == bool(capabilities & {asked, Capability.ADMIN})


@given(CAPABILITIES, st.none() | NAMES, st.sampled_from(MembersSee))
def test_who_sees_whom(capabilities: frozenset[Capability], customer_id: str | None, members_see: MembersSee) -> None:
    """Viewers everybody; members themselves, or by setting everybody; who only writes, nobody."""
    if capabilities & {Capability.VIEW, Capability.ADMIN}:
        expected = True
    elif capabilities:
        expected = False
    else:
        expected = members_see is MembersSee.TENANT or customer_id == "ana"

    assert sees(somebody(capabilities), customer_id, members_see) == expected


@pytest.mark.parametrize("customer_id", ["ana", None])
def test_who_is_no_customer_sees_none(customer_id: str | None) -> None:
    """A member without a customer of their own is not taken for one who asks for everybody."""
    assert not sees(somebody(frozenset(), None), customer_id, MembersSee.OWN)
