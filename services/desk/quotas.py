"""Quotas, budgets and customers' own caps: setting them, and asking whether one leaves room for more.

What is used is counted in `services.metering.counting`. A change holds for every transaction that begins after it: at
most as long as a transaction may take (30 seconds) some that are under way still count by what was before. That of a
customer's own holds at once: it waits for the customer's lock, and whoever waits behind it starts over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from billing.errors import AlreadyExists, CustomerNotFound, QuotaExceeded, QuotaNotFound, Rejected, TenantNotFound
from billing.money import ZERO, written
from billing.quotas import Measure, Per, Quota, QuotaKind, Scope, fits
from config.logging import logger
from db import customers as customer_rows
from db import quotas as rows
from db.quotas import NewQuota
from db.session import Connection, in_transaction
from services.books.zones import check_zone
from services.cursors import after, cursor
from services.desk.history import PAGE, Page, check_rows
from services.desk.standing import check_amount

log = logger(__name__)

NAME_CHARACTERS_MAX = 128
PAGE_MAX = 1000
UTC_ZONE = "UTC"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A quota to set. Without a zone, that of the customer who is named, else UTC."""

    tenant_id: str
    name: str
    limit: Decimal
    kind: QuotaKind = QuotaKind.QUOTA
    scope: Scope = Scope.TENANT
    subject: str = ""
    service_type: str | None = None
    feature: str | None = None
    per: Per = Per.MONTH
    measure: Measure = Measure.TOKENS
    currency: str | None = None
    is_hard: bool = False
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class QuotaSet:
    """A quota as it stands now."""

    quota: Quota
    is_new: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What somebody is about to use; what is not known is left out."""

    tenant_id: str
    customer_id: str
    user_id: str | None = None
    organization_id: str | None = None
    service_type: str | None = None
    feature: str | None = None
    tokens: int = 0
    events: int = 1
    cost: Decimal = ZERO
    currency: str | None = None

    def asked(self, quota: Quota) -> Decimal:
        """How much of a quota it would take."""
        match quota.measure:
            case Measure.TOKENS:
                return Decimal(self.tokens)
            case Measure.EVENTS:
                return Decimal(self.events)
            case Measure.COST:
                return self.cost if self.currency == quota.currency else ZERO


@dataclass(frozen=True, slots=True)
class Allowance:
    """How a quota stands to a question."""

    quota: Quota
    used: Decimal
    asked: Decimal
    resets_at: datetime

    @property
    def remaining(self) -> Decimal:
        return max(ZERO, self.quota.limit - self.used)

    @property
    def is_within(self) -> bool:
        return fits(self.used, self.asked, self.quota.limit)

    @property
    def refuses(self) -> bool:
        return self.quota.is_hard and not self.is_within


@dataclass(frozen=True, slots=True)
class QuotaCheck:
    """The answer: every quota that the usage would count in."""

    allowances: tuple[Allowance, ...]

    @property
    def refused_by(self) -> Allowance | None:
        """The first hard quota that leaves no room."""
        return next((one for one in self.allowances if one.refuses), None)

    @property
    def is_allowed(self) -> bool:
        return self.refused_by is None


def set_quota(wanted: Wanted, now: datetime) -> QuotaSet:
    """Make a quota; or give the one of this name another limit, or make it hard or soft. It counts from now on.

    Raises `TenantNotFound`, `CustomerNotFound`, `AlreadyExists` (the name is another quota's: end that one first),
    `Rejected` (what can't be a quota).
    """
    _check(wanted)

    def work(connection: Connection) -> QuotaSet:
        new = _new(connection, wanted)
        quota_id = rows.add(connection, new, now)
        known = rows.find(connection, wanted.tenant_id, wanted.name)
        if known is None:
            raise AlreadyExists(f"quota {wanted.name} was ended at this moment; set it again")
        if quota_id is not None:
            return QuotaSet(known, is_new=True)
        _refuse_others(known, new if wanted.time_zone else new._replace(time_zone=known.time_zone))
        if (known.limit, known.is_hard) != (new.limit, new.is_hard):
            rows.set_limit(connection, known, new.limit, now, is_hard=new.is_hard)
        return QuotaSet(replace(known, limit=new.limit, is_hard=new.is_hard), is_new=False)

    result = in_transaction(work)
    log.info("quota set", tenant_id=wanted.tenant_id, name=wanted.name, limit=written(wanted.limit), new=result.is_new)
    return result


def set_budget(
    tenant_id: str,
    feature: str,
    limit: Decimal,
    currency: str,
    now: datetime,
    *,
    per: Per = Per.MONTH,
    customer_id: str | None = None,
    time_zone: str | None = None,
) -> QuotaSet:
    """What a feature should cost, the tenant or one customer: it warns at 80 and 100 percent, and refuses nothing.

    Raises as `set_quota`.
    """
    scope = Scope.TENANT if customer_id is None else Scope.CUSTOMER
    name = f"budget:{feature}:{currency}:{per}" + ("" if customer_id is None else f":{customer_id}")
    wanted = Wanted(tenant_id, name, limit, QuotaKind.BUDGET, scope, customer_id or "", feature=feature, per=per)
    return set_quota(replace(wanted, measure=Measure.COST, currency=currency, time_zone=time_zone), now)


def set_cap(
    tenant_id: str, customer_id: str, limit: Decimal, currency: str, now: datetime, *, per: Per = Per.MONTH
) -> QuotaSet:
    """A customer's own limit on what usage costs: hard, by the customer's calendar. Raises as `set_quota`."""
    name = f"cap:{currency}:{per}:{customer_id}"
    wanted = Wanted(tenant_id, name, limit, QuotaKind.CAP, Scope.CUSTOMER, customer_id, per=per, is_hard=True)
    return set_quota(replace(wanted, measure=Measure.COST, currency=currency), now)


def end_quota(tenant_id: str, name: str, now: datetime) -> None:
    """Let a quota count and refuse no more. What it has counted stays. Raises `QuotaNotFound`."""
    if not in_transaction(lambda connection: rows.end(connection, tenant_id, name, now)):
        raise QuotaNotFound(tenant_id=tenant_id, name=name)
    log.info("quota ended", tenant_id=tenant_id, name=name)


def quotas_of(
    tenant_id: str, *, subject: str | None = None, after: str | None = None, limit: int = 100
) -> Sequence[Quota]:
    """A tenant's quotas by name, of all or of one subject; after a name, where a page before ended with it.

    Raises `Rejected` (no such number of rows).
    """
    if not 0 < limit <= PAGE_MAX:
        raise Rejected(f"a page has 1 to {PAGE_MAX} rows", limit=limit)
    return in_transaction(lambda connection: rows.listed(connection, tenant_id, limit, subject=subject, after=after))


def page(tenant_id: str, subject: str | None = None, *, limit: int = PAGE, at: str | None = None) -> Page[Quota]:
    """A page of a tenant's quotas by name, of all or of one subject.

    Raises `TenantNotFound`, `CursorMalformed`, `Rejected` (no such page).
    """
    check_rows(limit)
    question = ("quotas", tenant_id, subject)
    place = after(at, question, (str,))[0] if at is not None else None

    def work(connection: Connection) -> Sequence[Quota]:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return rows.listed(connection, tenant_id, limit + 1, subject=subject, after=place)

    found = in_transaction(work)
    more = cursor(question, (found[limit - 1].name,)) if len(found) > limit else None
    return Page(tuple(found[:limit]), more)


def check(usage: Usage, now: datetime) -> QuotaCheck:
    """Whether every quota leaves room for this, in the windows of now: one statement, no lock, no cache.

    Nothing is set aside: two questions at once may both be told yes. Raises `TenantNotFound`, `Rejected` (a negative
    amount).
    """

    def work(connection: Connection) -> QuotaCheck:
        found = check_within(connection, usage, now)
        if not found.allowances and not customer_rows.existing_tenants(connection, [usage.tenant_id]):
            raise TenantNotFound(tenant_id=usage.tenant_id)
        return found

    return in_transaction(work)


def check_within(connection: Connection, usage: Usage, now: datetime) -> QuotaCheck:
    """The same, within a transaction of the caller's."""
    check_amount(usage.cost)
    if usage.tokens < 0 or usage.events < 0:
        raise Rejected("what is about to be used is not negative", tokens=usage.tokens, events=usage.events)
    said = {
        "tenant_id": usage.tenant_id,
        "customer_id": usage.customer_id,
        "user_id": usage.user_id,
        "organization_id": usage.organization_id,
        "service_type": usage.service_type,
        "feature": usage.feature,
        "now": now,
    }
    found = rows.of_whom(connection, said)
    return QuotaCheck(tuple(Allowance(quota, used, usage.asked(quota), quota.resets_at(now)) for quota, used in found))


def enforce(connection: Connection, usage: Usage, now: datetime) -> None:
    """Raises `QuotaExceeded`, naming quota, limit, use and end of the window, where a hard quota leaves no room."""
    refused = check_within(connection, usage, now).refused_by
    if refused is not None:
        quota = refused.quota
        unit = quota.currency if quota.measure is Measure.COST else quota.measure.value
        raise QuotaExceeded(
            f"{quota.kind} {quota.name} leaves {written(refused.remaining)} of {written(quota.limit)} {unit} until "
            f"{refused.resets_at.isoformat()}; asked was {written(refused.asked)}",
            quota=quota.name,
        )


def _check(wanted: Wanted) -> None:
    names = {"name": wanted.name, "service_type": wanted.service_type, "feature": wanted.feature}
    for what, said in names.items():
        if said is not None and (not 0 < len(said) <= NAME_CHARACTERS_MAX or "\0" in said):
            raise Rejected(f"a quota's {what} has 1 to {NAME_CHARACTERS_MAX} characters", given=said)
    if len(wanted.subject) > NAME_CHARACTERS_MAX or "\0" in wanted.subject:
        raise Rejected(f"a subject has {NAME_CHARACTERS_MAX} characters at most", given=wanted.subject)
    check_amount(wanted.limit)
    if wanted.scope is Scope.TENANT and wanted.subject:
        raise Rejected("a quota of the whole tenant has no subject", subject=wanted.subject)
    if (wanted.measure is Measure.COST) != (wanted.currency is not None):
        raise Rejected("a quota of cost has a currency, and no other has one", measure=wanted.measure.value)
    if wanted.kind is QuotaKind.BUDGET and (wanted.feature is None or wanted.is_hard):
        raise Rejected("a budget is for a feature, and only warns", name=wanted.name)
    if wanted.kind is QuotaKind.CAP and not (wanted.scope is Scope.CUSTOMER and wanted.subject and wanted.is_hard):
        raise Rejected("a cap is one customer's, and hard", name=wanted.name)
    if wanted.time_zone is not None:
        check_zone(wanted.time_zone)


def _new(connection: Connection, wanted: Wanted) -> NewQuota:
    if not customer_rows.existing_tenants(connection, [wanted.tenant_id]):
        raise TenantNotFound(tenant_id=wanted.tenant_id)
    zone = wanted.time_zone
    if wanted.scope is Scope.CUSTOMER and wanted.subject:
        customer = customer_rows.find_customer(connection, wanted.tenant_id, wanted.subject)
        if customer is None:
            raise CustomerNotFound(tenant_id=wanted.tenant_id, customer_id=wanted.subject)
        zone = zone or customer.time_zone
    return NewQuota(
        wanted.tenant_id,
        wanted.name,
        wanted.kind,
        wanted.scope,
        wanted.subject,
        wanted.service_type,
        wanted.feature,
        wanted.per,
        zone or UTC_ZONE,
        wanted.measure,
        wanted.currency,
        wanted.limit,
        wanted.is_hard,
    )


def _refuse_others(known: Quota, new: NewQuota) -> None:
    """A quota keeps what it counts: another one of the same name would change what its counters mean."""
    for fact in ("kind", "scope", "subject", "service_type", "feature", "per", "time_zone", "measure", "currency"):
        before, after = getattr(known, fact), getattr(new, fact)
        if before != after:
            raise AlreadyExists(
                f"quota {known.name} is another: its {fact} is {before or 'not told'}, not {after or 'not told'}; "
                "end it first, or take another name"
            )
