"""Who may do what: capabilities, and what a plain member of a tenant may see."""

from dataclasses import dataclass
from enum import StrEnum

from billing.errors import Forbidden


class Capability(StrEnum):
    """What someone may do with a whole tenant. The words are API."""

    VIEW = "billing.view"
    """See every customer of the tenant."""
    WRITE = "billing.write"
    """Record usage. It does not let anybody see."""
    ADMIN = "billing.admin"
    """Give, take back and buy; and everything else."""


class Through(StrEnum):
    """How someone came in."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    API_KEY = "api_key"
    COMMAND_LINE = "command_line"


class MembersSee(StrEnum):
    """What those without a capability see."""

    OWN = "own"
    """The customer that they are."""
    TENANT = "tenant"
    """Every customer of their tenant."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone who asks: of which tenant, who, what they may do; as a plain member, which customer they are."""

    tenant_id: str
    subject: str
    capabilities: frozenset[Capability]
    through: Through
    customer_id: str | None = None

    def may(self, capability: Capability) -> bool:
        """Whether they have a capability; administrators have all.

        >>> Principal("acme", "ana", frozenset({Capability.ADMIN}), Through.TOKEN).may(Capability.VIEW)
        True
        """
        return capability in self.capabilities or Capability.ADMIN in self.capabilities


def require(principal: Principal, capability: Capability) -> None:
    """Raises `Forbidden` without the capability."""
    if not principal.may(capability):
        raise Forbidden(f"this needs {capability}", required=capability.value)


def confined_to(principal: Principal, members_see: MembersSee) -> str | None:
    """The one customer of whom alone somebody may see or do anything; None for whoever may more.

    Someone who is no customer is confined to one that is not there.

    >>> confined_to(Principal("acme", "ana", frozenset(), Through.TOKEN, "ana"), MembersSee.OWN)
    'ana'
    """
    if principal.capabilities or members_see is MembersSee.TENANT:
        return None
    return principal.customer_id or principal.subject


def require_sight(principal: Principal, customer_id: str | None, members_see: MembersSee) -> None:
    """Raises `Forbidden` for whoever may not see this customer, or, without one, the whole tenant.

    Nothing is looked up: a stranger hears the same of a customer that is there and of one that is not.
    """
    if principal.may(Capability.VIEW):
        return
    if Capability.WRITE in principal.capabilities:
        raise Forbidden(f"this needs {Capability.VIEW}", required=Capability.VIEW.value)
    if members_see is MembersSee.TENANT:
        return
    if customer_id is None or customer_id != principal.customer_id:
        raise Forbidden("a member sees the own wallet alone", required=Capability.VIEW.value)


def require_purpose(
    principal: Principal, user_id: str | None, organization_id: str | None, members_see: MembersSee
) -> None:
    """Raises `Forbidden` for a confined member who asks for another user's quotas, or for an organization's.

    What was used in those is told with the answer, and nothing says to whom a user or an organization belongs.
    """
    if confined_to(principal, members_see) is None:
        return
    if user_id not in {None, principal.subject}:
        raise Forbidden("a member asks for no user but themselves", required=Capability.VIEW.value)
    if organization_id is not None:
        raise Forbidden("a member asks for no organization", required=Capability.VIEW.value)
