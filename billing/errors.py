"""Every error that Centavo raises on purpose.

The class name is the fact, the docstring the message, the fields identify the row::

    CentavoError
    ├── Rejected            this input can't be done: park it, or tell the caller
    │   ├── EnvelopeMalformed, EventMalformed
    │   ├── ItemsMalformed, CursorMalformed
    │   ├── NotFound        TenantNotFound, CustomerNotFound, PlanNotFound, PriceNotFound, WalletNotFound,
    │   │                   PaymentNotFound, EventNotFound, ParkedNotFound, HoldNotFound, QuotaNotFound, KeyNotFound,
    │   │                   TopUpRuleNotFound
    │   ├── Conflict        AlreadyExists, IdempotencyConflict, EventNotPending, BillingMethodRefused
    │   ├── Unauthenticated, Forbidden, TooManyRequests (LowBalanceLimited)
    │   ├── InsufficientCredits, QuotaExceeded
    │   └── CatalogueMalformed, AuditRefused, UsageArchived, OutOfScope
    ├── Unavailable         the world is away: wait and try again
    │   ├── DatabaseUnavailable (DatabaseSlow, DatabaseBusy)
    │   └── BrokerUnavailable, EnvelopeBusy, CollectingUnavailable
    ├── Stopping            the process was asked to stop while it waited
    ├── ClocksDiffer        this host's time can't be believed: do nothing that time alone brings about
    └── BrokenInvariant     something that can't be true is: stop and page
"""

from typing import ClassVar


class CentavoError(Exception):
    """Something went wrong in Centavo."""

    def __init__(self, detail: str = "", **fields: object) -> None:
        self.detail = detail
        self.fields = fields
        super().__init__(str(self))

    def __str__(self) -> str:
        message = (self.__doc__ or "").strip().splitlines()[0]
        named = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        parts = [part for part in (self.detail or message, f"({named})" if named else "") if part]
        return " ".join(parts)


class Rejected(CentavoError):
    """This input can't be accepted."""

    code: ClassVar[str] = "rejected"


class EnvelopeMalformed(Rejected):
    """This is not an envelope of usage events."""

    code = "envelope_malformed"


class EventMalformed(Rejected):
    """This is not a usage event."""

    code = "event_malformed"


class CatalogueMalformed(Rejected):
    """This file is not a catalogue."""

    code = "catalogue_malformed"


class ItemsMalformed(Rejected):
    """These items can't be one usage event."""

    code = "items_malformed"


class CursorMalformed(Rejected):
    """This cursor is none of this list; begin without one."""

    code = "cursor_malformed"


class NotFound(Rejected):
    """There is no such thing."""

    code = "not_found"


class TenantNotFound(NotFound):
    """There is no such tenant; create it with `centavo tenants create`."""

    code = "unknown_tenant"


class CustomerNotFound(NotFound):
    """There is no such customer; create it with `centavo customers create`."""

    code = "unknown_customer"


class PlanNotFound(NotFound):
    """There is no such plan; `centavo plans list` shows what there is."""

    code = "unknown_plan"


class PriceNotFound(NotFound):
    """This product has no price; `centavo prices list` shows what there is."""

    code = "unknown_price"


class WalletNotFound(NotFound):
    """The customer has no wallet in this currency."""

    code = "unknown_wallet"


class PaymentNotFound(NotFound):
    """There is no such payment."""

    code = "unknown_payment"


class EventNotFound(NotFound):
    """There is no such usage event."""

    code = "unknown_event"


class KeyNotFound(NotFound):
    """There is no such key; `centavo api-keys list` shows what there is."""

    code = "unknown_api_key"


class ParkedNotFound(NotFound):
    """Nothing is parked under this id; `centavo parked list` shows what is."""

    code = "unknown_parked"


class HoldNotFound(NotFound):
    """There is no such hold; `centavo holds list` shows what there is."""

    code = "unknown_hold"


class QuotaNotFound(NotFound):
    """There is no such quota; `centavo quotas list` shows what there is."""

    code = "unknown_quota"


class TopUpRuleNotFound(NotFound):
    """This wallet has no rule by which it tops itself up."""

    code = "unknown_top_up_rule"


class Conflict(Rejected):
    """This contradicts what is already recorded."""

    code = "conflict"


class AlreadyExists(Conflict):
    """This exists already, with other values."""

    code = "already_exists"


class IdempotencyConflict(Conflict):
    """This idempotency key was used before, for something else."""

    code = "idempotency_conflict"


class Unauthenticated(Rejected):
    """Nobody knows who asks: send a token or a key as `Authorization: Bearer …`."""

    code = "unauthenticated"


class Forbidden(Rejected):
    """Whoever asks may not do this."""

    code = "forbidden"


class TooManyRequests(Rejected):
    """Too many requests came at once; ask again later."""

    code = "too_many_requests"


class LowBalanceLimited(TooManyRequests):
    """The customer's balance is low: what costs something is asked for less often then."""

    code = "low_balance_limited"


class InsufficientCredits(Rejected):
    """What is available does not cover what is asked for."""

    code = "insufficient_credits"


class EventNotPending(Conflict):
    """This event does not wait to be settled."""

    code = "event_not_pending"


class BillingMethodRefused(Conflict):
    """This usage would not be paid for like this."""

    code = "billing_method_refused"


class AuditRefused(Rejected):
    """The audit would run under a role that could write, or that isn't there."""

    code = "audit_refused"


class UsageArchived(Rejected):
    """This usage is archived, and is not corrected any more."""

    code = "usage_archived"


class QuotaExceeded(Rejected):
    """A quota leaves no room for this."""

    code = "quota_exceeded"


class OutOfScope(Rejected):
    """These rows are not those of the tenant or customer that this runs for."""

    code = "out_of_scope"


class Unavailable(CentavoError):
    """Something outside is away for now."""


class DatabaseUnavailable(Unavailable):
    """Postgres can't be reached, or can't do this now."""


class DatabaseSlow(DatabaseUnavailable):
    """Postgres took longer than a transaction may take: it has much to do, or this was too much at once."""


class DatabaseBusy(DatabaseUnavailable):
    """Somebody holds rows that this needs for longer than it may wait; others' rows are free."""


class TooSlow(CentavoError):
    """Postgres takes longer for this than it may, or somebody holds what it needs, again and again."""


class EnvelopeBusy(Unavailable):
    """Another worker is at this envelope now."""


class BrokerUnavailable(Unavailable):
    """The message broker can't be reached."""


class Stopping(CentavoError):
    """The process was asked to stop while it waited."""


class ClocksDiffer(CentavoError):
    """The clocks of this host and of Postgres are too far apart."""


class BrokenInvariant(CentavoError):
    """Something that can't be true is: stop, and look before anything else is charged."""
