"""Who asks, whether they may, and whose rows the transactions of their request are shown.

Every route of `/v1` depends on one of `Caller`, `Viewer`, `Writer`, `Admin`, `OfTenant` and `OverAll`: that sets the
scope in which its work runs (`db.scope`). A route without one reads nothing: this process refuses transactions for
which nobody has said whose rows they are shown.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Path, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import tokens
from billing.access import (
    Capability,
    MembersSee,
    Principal,
    confined_to,
    require,
    require_purpose,
    require_sight,
)
from billing.errors import TooManyRequests, Unauthenticated
from centavo.events import Identifier
from config import clock
from config.settings import settings
from db.scope import as_everybody, as_tenant
from services.desk.access import PREFIX, hash_of, principal_of

#: A revoked key is taken for so long at most by a process that has just seen it.
KEPT_SECONDS = 5.0
KEPT_MAX = 10_000

KEY_CHARACTERS_MAX = 256

#: Callers that are counted. Of more, those who have asked for nothing for a while are forgotten.
CALLERS_MAX = 10_000
#: How many seconds' worth of requests may come at once.
BURST_SECONDS = 2

_bearer = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="JWT, or an API key",
    description="A token that one of the issuer's keys has signed, with `tenant_id`, `sub`, `exp` and `capabilities`; "
    f"or an API key, which begins with `{PREFIX}`.",
    auto_error=False,
)


class _Kept(NamedTuple):
    principal: Principal
    expires_at: datetime | None
    until: float


class KeysSeen:
    """Keys that were found a moment ago. Those that were not, are never kept: a new key holds at once."""

    def __init__(self, tick: Callable[[], float] = time.monotonic) -> None:
        self._tick = tick
        self._kept: dict[bytes, _Kept] = {}

    async def principal(self, secret: str) -> Principal:
        """Whose key this is. Raises `Unauthenticated`."""
        if len(secret) > KEY_CHARACTERS_MAX:
            raise Unauthenticated("this is no API key")
        digest, now = hash_of(secret), clock.now()
        kept = self._kept.get(digest)
        if kept is not None and self._tick() < kept.until and (kept.expires_at is None or now < kept.expires_at):
            return kept.principal
        self._kept.pop(digest, None)
        with as_everybody():  # whose key it is, is the question
            found = await run_in_threadpool(principal_of, secret, now)
        if found is None:
            raise Unauthenticated("this API key is unknown, revoked or over")
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[digest] = _Kept(*found, self._tick() + KEPT_SECONDS)
        return found[0]


class Buckets:
    """A bucket of tokens for each caller, in this process: it fills at a pace, and a request takes one."""

    def __init__(self, seconds: float, tick: Callable[[], float] = time.monotonic) -> None:
        """So many seconds' worth of requests may come at once."""
        self._seconds = seconds
        self._tick = tick
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, caller: tuple[str, str], per_second: float) -> float:
        """Let a request through, and return 0; or return after how many seconds one may come."""
        now, most = self._tick(), max(1.0, per_second * self._seconds)
        held, since = self._buckets.get(caller, (most, now))
        held = min(most, held + (now - since) * per_second)
        if held < 1:
            self._buckets[caller] = (held, now)
            return (1 - held) / per_second
        if len(self._buckets) >= CALLERS_MAX:
            self._forget(now, per_second)
        self._buckets[caller] = (held - 1, now)
        return 0

    def _forget(self, now: float, per_second: float) -> None:
        """Whose bucket is full again is as one who never came."""
        full_after = max(self._seconds, 1 / per_second)
        self._buckets = {one: kept for one, kept in self._buckets.items() if now - kept[1] < full_after}


class Limits:
    """How many requests in a second each caller may make, in this process."""

    def __init__(self, per_second: int, tick: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._buckets = Buckets(BURST_SECONDS, tick)

    def take(self, caller: tuple[str, str]) -> None:
        """Let a request through, or raise `TooManyRequests` with the seconds after which one may come."""
        if self._per_second and self._buckets.take(caller, self._per_second):
            raise TooManyRequests(f"at most {self._per_second} requests a second", retry_after_seconds=1)


async def authenticated(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Principal:
    """Whoever asks. Raises `Unauthenticated`, `TooManyRequests`."""
    if credentials is None:
        raise Unauthenticated
    said = credentials.credentials
    if said.startswith(PREFIX):
        seen: KeysSeen = request.app.state.keys_seen
        principal = await seen.principal(said)
    else:
        principal = tokens.principal_of(said)
    limits: Limits = request.app.state.limits
    limits.take((principal.tenant_id, principal.subject))
    request.state.principal = principal
    return principal


Asking = Annotated[Principal, Depends(authenticated)]


async def caller_of(request: Request) -> Principal:
    """Whoever asks, where nothing is asked of FastAPI. Raises as `authenticated`."""
    return await authenticated(request, await _bearer(request))


def _own_scope(caller: Principal) -> AbstractContextManager[None]:
    return as_tenant(caller.tenant_id, confined_to(caller, _members_see()))


def _scope_of_tenant(caller: Principal) -> AbstractContextManager[None]:
    return as_tenant(caller.tenant_id)


async def in_own_scope(asking: Asking) -> AsyncIterator[Principal]:
    """Whoever asks, from here on in the scope of what they may see: their tenant, or the customer that they are."""
    with _own_scope(asking):
        yield asking


async def in_scope_of_tenant(asking: Asking) -> AsyncIterator[Principal]:
    """Whoever asks, in their tenant's scope, also a member: for what a tenant has of all its customers together."""
    with _scope_of_tenant(asking):
        yield asking


async def in_scope_of_all(asking: Asking) -> AsyncIterator[Principal]:
    """Whoever asks, where rows of no tenant are read; what is a tenant's, the route itself must keep apart."""
    with as_everybody():
        yield asking


Caller = Annotated[Principal, Depends(in_own_scope)]
#: Quotas count what all customers use together: in the scope of one of them there are none.
OfTenant = Annotated[Principal, Depends(in_scope_of_tenant)]


def needs(
    capability: Capability, scoped: Callable[[Principal], AsyncIterator[Principal]] = in_own_scope
) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency: whoever asks, if they have the capability. Raises `Forbidden`."""

    async def with_capability(caller: Annotated[Principal, Depends(scoped)]) -> Principal:
        require(caller, capability)
        return caller

    return with_capability


Viewer = Annotated[Principal, Depends(needs(Capability.VIEW))]
Writer = Annotated[Principal, Depends(needs(Capability.WRITE))]
Admin = Annotated[Principal, Depends(needs(Capability.ADMIN))]
#: For how the installation stands: the audit's turn and its findings, health.
OverAll = Annotated[Principal, Depends(needs(Capability.VIEW, in_scope_of_all))]

CustomerId = Annotated[Identifier, Path(description="The customer, as the application calls them.", examples=["ana"])]


async def seen_customer(caller: Caller, customer_id: CustomerId) -> tuple[str, str]:
    """The (tenant, customer) that the path names, if the caller may see them. Raises `Forbidden`."""
    require_sight(caller, customer_id, _members_see())
    return caller.tenant_id, customer_id


async def seen_among_all(caller: OfTenant, customer_id: CustomerId) -> tuple[str, str]:
    """The same in the tenant's scope, for an answer that hangs on quotas. Raises `Forbidden`."""
    require_sight(caller, customer_id, _members_see())
    return caller.tenant_id, customer_id


class Sight(NamedTuple):
    """The same where nothing is asked of FastAPI."""

    scope: Callable[[Principal], AbstractContextManager[None]]

    def __call__(self, caller: Principal, customer_id: str) -> AbstractContextManager[None]:
        """The scope in which this customer is looked at. Raises `Forbidden`."""
        require_sight(caller, customer_id, _members_see())
        return self.scope(caller)


SIGHTS: Mapping[Callable[..., Any], Sight] = {
    seen_customer: Sight(_own_scope),
    seen_among_all: Sight(_scope_of_tenant),
}

Seen = Annotated[tuple[str, str], Depends(seen_customer)]
SeenAmongAll = Annotated[tuple[str, str], Depends(seen_among_all)]


def in_sight(caller: Principal, customer_id: str | None) -> str | None:
    """The customer that was asked for; a member who sees no other, and names none, asks for the own.

    Raises `Forbidden`.
    """
    members_see = _members_see()
    if customer_id is None:
        customer_id = confined_to(caller, members_see)
    require_sight(caller, customer_id, members_see)
    return customer_id


def for_own_purpose(request: Request, user_id: str | None, organization_id: str | None) -> None:
    """Whether whoever asks, and is known by now, may ask what quotas leave for this user and this organization.

    Raises `Forbidden`.
    """
    require_purpose(request.state.principal, user_id, organization_id, _members_see())


def _members_see() -> MembersSee:
    return MembersSee(settings().api_members_see)
