"""For whom a transaction runs: for the worker, who sees all rows, or for one tenant or customer.

    with as_tenant("acme", "ana"):
        balance("acme", "ana", now)

Every transaction inside runs as the role `centavo_api`, and its settings say whose rows the policies of `db.policies`
let through. A process that serves tenants calls `refuse_unscoped` once: from then on a transaction for which nobody
has said anything is refused, and does not run as the worker.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import psycopg
from psycopg import errors

from billing.errors import BrokenInvariant, DatabaseUnavailable, OutOfScope

API_ROLE = "centavo_api"


class Scope(NamedTuple):
    """Whose rows: a tenant's, or one customer's of them; of no tenant: everybody's, because somebody said so."""

    tenant_id: str | None
    customer_id: str | None = None

    def holds(self, other: "Scope") -> bool:
        """Whether the other shows no row that this one does not."""
        return self.tenant_id is None or (
            self.tenant_id == other.tenant_id and self.customer_id in {None, other.customer_id}
        )


_EVERYBODY = Scope(None)
_scope: ContextVar[Scope | None] = ContextVar("centavo_scope", default=None)
_refused: list[bool] = []

# SET LOCAL ROLE as a function, so that one statement says all of it.
_TAKE_ON = """
SELECT set_config('role', %s, true), set_config('centavo.tenant_id', %s, true),
    set_config('centavo.customer_id', %s, true)
"""

_STAND_IN = _TAKE_ON.replace("true", "false")


@contextmanager
def as_tenant(tenant_id: str, customer_id: str | None = None) -> Iterator[None]:
    """Run the transactions inside for this tenant, or for one customer of it. Their other rows do not exist there.

    It holds in this thread and in what inherits its context. Inside another scope it may only narrow it: otherwise
    `OutOfScope` is raised. Raises `ValueError` for an empty name, which would mean more than it says.
    """
    if not tenant_id or customer_id == "":
        raise ValueError("a scope names a tenant, and a customer or none; an empty name is neither")
    with _within(Scope(tenant_id, customer_id)):
        yield


@contextmanager
def as_everybody() -> Iterator[None]:
    """Run the transactions inside for all tenants, as the worker does: for Stripe's webhooks, health, operators.

    Raises `OutOfScope` inside a tenant's scope.
    """
    with _within(_EVERYBODY):
        yield


@contextmanager
def afresh() -> Iterator[None]:
    """Begin without a scope, whatever the context that this was begun in says.

    For the edge alone, where a request comes in: a server may begin it from within another that it has just answered,
    whose scope it would inherit.
    """
    token = _scope.set(None)
    try:
        yield
    finally:
        _scope.reset(token)


def refuse_unscoped(*, refused: bool = True) -> None:
    """From now on this process says for whom each transaction runs; one that does not is a mistake of ours."""
    _refused[:] = [True] if refused else []


def tenant() -> str | None:
    """The tenant for whom transactions run here; None when they run for everybody."""
    scope = _scope.get()
    return None if scope is None else scope.tenant_id


def customer() -> str | None:
    """The one customer for whom transactions run here, if any."""
    scope = _scope.get()
    return None if scope is None else scope.customer_id


def take_on(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Begin a transaction for whom it is to run.

    Raises `DatabaseUnavailable` when there is no role to run as, `BrokenInvariant` when nobody has said for whom.
    """
    scope = _scope.get()
    if scope is None:
        if _refused:
            raise BrokenInvariant("a transaction was begun without a scope: say as_tenant(…) or as_everybody()")
        return
    if scope.tenant_id is None:
        return
    try:
        connection.execute(_TAKE_ON, (API_ROLE, scope.tenant_id, scope.customer_id or ""))
    except (errors.InsufficientPrivilege, errors.InvalidParameterValue) as error:
        raise _no_role() from error


def stand_in(connection: psycopg.Connection[tuple[object, ...]], held: Scope | None) -> Scope:
    """Let a connection that is asked one statement at a time stand in the scope of here; which scope that is.

    It stays there, so whoever keeps the connection keeps that too, as `held` for the next question: of the same
    tenant's there is nothing to be said then. None: it is new, and stands for everybody. Raises as `take_on`.
    """
    scope = _scope.get()
    if scope is None:
        if _refused:
            raise BrokenInvariant("a question was asked without a scope: say as_tenant(…) or as_everybody()")
        scope = _EVERYBODY
    if scope != (held or _EVERYBODY):
        role = "none" if scope.tenant_id is None else API_ROLE
        try:
            connection.execute(_STAND_IN, (role, scope.tenant_id or "", scope.customer_id or ""))
        except (errors.InsufficientPrivilege, errors.InvalidParameterValue) as error:
            raise _no_role() from error
    return scope


def _no_role() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"there is no role {API_ROLE} that this user may take on. Run `centavo migrate` as a user that may make "
        "roles, or see docs/operations.md for what an administrator runs once"
    )


@contextmanager
def _within(scope: Scope) -> Iterator[None]:
    outer = _scope.get()
    if outer is not None and not outer.holds(scope):
        raise OutOfScope("this runs for one tenant or customer already, and can't run for more")
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)
