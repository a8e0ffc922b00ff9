"""Whether an event may be charged, decided where it is charged: under its customer's lock, in the same transaction.

So of two events that each could be paid for, and not both, one is refused. Asked before an event
(`services.desk.wallets.can_afford`), nothing is set aside, and both are told yes.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal

from billing import quotes
from billing.affordability import Affordability
from billing.charging import Charge
from billing.credit_holds import HoldState
from billing.errors import BillingMethodRefused, InsufficientCredits, QuotaExceeded
from billing.grants import kept_back
from billing.money import ZERO, written
from billing.quotes import BillingMethod
from billing.rating import Rated
from db import credit_holds as hold_rows
from db import wallets as wallet_rows
from db.credit_holds import HoldRow
from db.desk import WalletStanding
from db.grants import opened
from db.session import Connection
from services.desk import credit_holds, quoting, standing
from services.desk.quotes import paid_by
from services.desk.standing import Standing
from services.desk.wallets import Purpose, afford_rated, weighed

NO_BUFFER = Decimal(1)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a caller demands before an event is charged."""

    is_covered: bool = False
    """That what pays for it is there: no debt."""
    is_within_quotas: bool = False
    """That hard quotas leave room for it."""
    method: BillingMethod | None = None
    """That all of it is paid for like this."""

    def __bool__(self) -> bool:
        return self.is_covered or self.is_within_quotas or self.method is not None


def require(connection: Connection, charge: Charge, demand: Demand, now: datetime) -> None:
    """Lock the customer's wallets, and refuse what does not meet the demand.

    What others commit meanwhile counts: it is read under the lock; holds whose time is over count no more. Counters
    that several customers share are not locked by it: of a quota of a tenant, an organisation or a user, two customers
    at once may both get the rest.

    Raises `InsufficientCredits`, `QuotaExceeded`, `BillingMethodRefused`.
    """
    event = charge.event
    identity = (event.tenant_id, event.customer_id)
    credit_holds.expire_of(connection, wallet_rows.lock_of_customer(connection, *identity), now)
    purpose = Purpose(event.user_id, event.organization_id, event.service_type, event.feature)
    asked = asdict(purpose) if demand.is_within_quotas else None
    # An event of another day counts in the quotas of that, and, in a month that is still open, in that month.
    found = standing.read(
        connection,
        *identity,
        now,
        with_sources=demand.method is not None,
        purpose=asked,
        used_at=event.occurred_at,
        period=charge.tally.period,
    )
    rated = quoting.climbed(connection, (*identity, charge.tally.period.starts_at), charge.rated)

    hold = _open_hold(connection, charge, now)

    if demand.is_covered:
        _cover(_with_hold(found, hold, event.occurred_at), rated, event.occurred_at)
    if demand.method is not None:
        _serve(found, rated, demand.method, event.occurred_at, hold)


def shortage(asked: Affordability) -> dict[str, str]:
    """What is there of what is needed, as an error says it."""
    found = {"unit": asked.unit, "available": written(asked.available), "required": written(asked.required)}
    return found | ({"reason": asked.reason.value} if asked.reason else {})


def _cover(found: Standing, rated: Rated, occurred_at: datetime) -> None:
    """What pays is what was valid when it occurred, as it is burned."""
    asked = afford_rated(found, rated, NO_BUFFER, occurred_at)
    if asked.deciding.quota is not None and not asked.is_affordable:
        raise QuotaExceeded(quota=asked.deciding.quota, customer_id=found.customer_id, **shortage(asked))
    if not asked.is_affordable:
        raise InsufficientCredits(customer_id=found.customer_id, **shortage(asked))


def _open_hold(connection: Connection, charge: Charge, now: datetime) -> HoldRow | None:
    """The hold that the event names, if it still keeps something back for it."""
    event = charge.event
    hold = hold_rows.find(connection, event.tenant_id, event.hold_id) if event.hold_id is not None else None
    if hold is None or hold.customer_id != event.customer_id or hold.state != HoldState.OPEN or hold.expires_at <= now:
        return None
    return hold


def _with_hold(found: Standing, hold: HoldRow | None, occurred_at: datetime) -> Standing:
    """What the hold still keeps back is there for it, also of grants that have ended since."""
    if hold is None:
        return found
    wallets = (
        _freed(wallet, hold, occurred_at) if wallet.currency == hold.currency else wallet for wallet in found.wallets
    )
    return replace(found, wallets=tuple(wallets))


def _freed(wallet: WalletStanding, hold: HoldRow, occurred_at: datetime) -> WalletStanding:
    """A wallet as it stands for usage that captures a hold, burned as `billing.grants.burn_kept` does.

    What others have reserved takes nothing of the hold's own part of grants that have ended.
    """
    left = hold.amount - hold.captured
    others = wallet._replace(reserved=wallet.reserved - left)
    kept = min(left, kept_back(opened(wallet.open_grants), occurred_at, hold.opened_at))
    short = min(ZERO, weighed(others, occurred_at).available) if kept else ZERO
    return others._replace(reserved=others.reserved - kept + short)


def _serve(found: Standing, rated: Rated, method: BillingMethod, occurred_at: datetime, hold: HoldRow | None) -> None:
    paid = paid_by(found, rated, occurred_at, hold)
    quote = quotes.quote(rated, found.cover(), paid, found.row.price_revision, has_card=found.row.has_card)
    if not quote.is_served_by(method):
        would = ", ".join(dict.fromkeys(line.method.value for line in quote.lines))
        raise BillingMethodRefused(
            f"asked was {method}; on plan {found.plan.plan_id}, as things stand, it would be {would}",
            asked=method.value,
            would_be=would,
        )
