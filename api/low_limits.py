"""How often a customer whose wallet is low may ask for what costs something, where the tenant has set a limit.

What is set is kept for some seconds, so that tenants without a limit pay nothing for it. Of a tenant with one, each
such request asks what the customer has: one statement, by index, without a lock.
"""

import math
import time
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from api.access import Buckets
from billing.errors import LowBalanceLimited, NotFound
from config import clock
from services.desk import tenant_settings, wallets

#: A setting that was changed is not seen for so long at most.
KEPT_SECONDS = 5.0
TENANTS_MAX = 10_000
#: How many seconds' worth of requests may come at once.
BURST_SECONDS = 10.0
MINUTE = 60.0


class _Kept(NamedTuple):
    per_minute: int | None
    until: float


class LowLimits:
    """The limits of tenants, and the buckets of their customers, in one of so many processes."""

    def __init__(self, processes: int = 1, tick: Callable[[], float] = time.monotonic) -> None:
        self._processes = processes
        self._tick = tick
        self._kept: dict[str, _Kept] = {}
        self._buckets = Buckets(BURST_SECONDS, tick)
        self._lock = Lock()

    def take(self, tenant_id: str, customer_id: str) -> None:
        """Let a request for a customer through, or raise `LowBalanceLimited` with when one may come.

        A customer who is not there is let through: what was asked for says so itself.
        """
        per_minute = self._per_minute(tenant_id)
        if per_minute is None or not _is_low(tenant_id, customer_id):
            return
        with self._lock:
            seconds = self._buckets.take((tenant_id, customer_id), per_minute / self._processes / MINUTE)
        if seconds:
            raise LowBalanceLimited(
                f"at most {per_minute} in a minute while less is available than the wallet's threshold",
                retry_after_seconds=math.ceil(seconds),
                per_minute=per_minute,
            )

    def _per_minute(self, tenant_id: str) -> int | None:
        kept = self._kept.get(tenant_id)
        if kept is None or self._tick() >= kept.until:
            if len(self._kept) >= TENANTS_MAX:
                self._kept.clear()
            kept = _Kept(_limit_of(tenant_id), self._tick() + KEPT_SECONDS)
            self._kept[tenant_id] = kept
        return kept.per_minute


def _limit_of(tenant_id: str) -> int | None:
    try:
        return tenant_settings.of_tenant(tenant_id).in_force.low_requests_per_minute
    except NotFound:
        return None


def _is_low(tenant_id: str, customer_id: str) -> bool:
    try:
        return wallets.is_low(tenant_id, customer_id, clock.now())
    except NotFound:
        return False
