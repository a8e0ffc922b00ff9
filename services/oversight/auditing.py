"""The audit by itself: runs when it is due, keeps what it finds, tells a person, and may stop collecting."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from billing.payments import AlertKind, HoldReason
from config.logging import logger
from config.settings import settings
from db import collecting, differences
from db.alerts import raise_alert
from db.audit import Difference
from db.customers import existing_tenants
from db.session import Connection, in_transaction
from db.wallet_checks import BALANCE, NAMED_BY_CUSTOMER, WALLET_CHECKS
from services.desk import tenant_settings
from services.oversight.audit import Audit, audit

log = logger(__name__)

#: Differences kept of one check. Of more, nobody reads the rest before the cause is gone.
KEPT_MAX = 5000
#: An audit that has not ended after so long died, and another one begins.
LEASE = timedelta(hours=2)

WHOLE = Decimal(100)


def audit_due(now: datetime) -> Audit | None:
    """Run the audit if its time has come, and act on what it finds; None when it has not.

    Only one runs at a time, however many look.
    """
    hours = settings().audit_every_hours
    if hours == 0 or not in_transaction(lambda connection: differences.take_turn(connection, now, now + LEASE)):
        return None
    result = audit(shown_max=KEPT_MAX)
    in_transaction(partial(_act, result, now))
    log.info("audited", differences=result.differences, seconds=round(sum(result.seconds.values()), 3))
    return result


def _act(result: Audit, now: datetime, connection: Connection) -> None:
    """Keep, resolve, hold, tell, and be due again: all of it or nothing."""
    if result.shown:
        differences.keep(connection, result.shown, now)
    # Of a check that found more than is kept, what is not among them may stand all the same.
    whole = [check for check, found in result.checks.items() if found <= KEPT_MAX]
    differences.resolve(connection, whole, now)
    if settings().audit_freezes:
        _freeze(connection, result.shown, now)
    _tell(connection, result, now)
    differences.end_turn(connection, now + timedelta(hours=settings().audit_every_hours), now)


def _freeze(connection: Connection, found: Sequence[Difference], now: datetime) -> None:
    """Collect nothing from whose wallet disagrees, until a person lets go; their usage is recorded as ever."""
    of_wallets = [(one, one.check in NAMED_BY_CUSTOMER) for one in found if one.check in WALLET_CHECKS]
    for tenant_id, customer_id in differences.owners(connection, of_wallets):
        why = "the audit found that a wallet disagrees with its entries or grants"
        collecting.hold(connection, tenant_id, customer_id, HoldReason.AUDIT_DIFFERS, why, now)
        log.warning("customer held", tenant_id=tenant_id, customer_id=customer_id, why=why)


def _tell(connection: Connection, result: Audit, now: datetime) -> None:
    """Raise an alert for each tenant of whose rows, or of the value of one of whose wallets, too much differs."""
    numbers = Counter(one.tenant_id for one in result.shown)
    for tenant_id, chosen in sorted(_thresholds(connection, [*numbers]).items()):
        own = [one for one in result.shown if one.tenant_id == tenant_id]
        percent = WHOLE * numbers[tenant_id] / max(result.rows_of[tenant_id], 1)
        value = max((_off_percent(one) for one in own), default=Decimal(0))
        if percent > chosen[0] or value > chosen[1]:
            first = f"{own[0].check}: {own[0].subject}: expected {own[0].expected}, found {own[0].actual}"
            detail = f"{len(own)} differences, {percent:.6f} % of what was checked; the first: {first}"
            raise_alert(connection, tenant_id, AlertKind.AUDIT_DIFFERS, "audit", detail, now)


def _thresholds(connection: Connection, named: Sequence[str]) -> dict[str, tuple[Decimal, Decimal]]:
    """Of how many percent of rows, and of a wallet's value, each of these tenants is told: of those that are there."""
    chosen = tenant_settings.in_force(connection, existing_tenants(connection, named))
    return {
        tenant_id: (one.audit_alert_percent or Decimal(0), one.audit_alert_value_percent or Decimal(0))
        for tenant_id, one in chosen.items()
    }


def _off_percent(difference: Difference) -> Decimal:
    """By how much of what its entries come to a wallet's balance is off; 0 for what has no value of its own."""
    if difference.check != BALANCE:
        return Decimal(0)
    expected, actual = (Decimal(said.split(" ")[0]) for said in (difference.expected, difference.actual))
    if expected == actual:
        return Decimal(0)
    return WHOLE * abs(actual - expected) / abs(expected) if expected else WHOLE
