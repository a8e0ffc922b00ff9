"""`GET /metrics`: what an operator is to be woken by, in Prometheus's text format.

Figures of the database and the broker are those of a look that is at most some seconds old (`api.looks`): asking often
costs nothing. What could not be looked at is left out, and `centavo_look_ok` is 0.
"""

import asyncio
import hmac
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from ipaddress import ip_address
from typing import Any, NamedTuple

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from api.looks import Look
from api.measuring import Requests
from billing.errors import Forbidden, Unauthenticated, Unavailable
from config import clock
from config.logging import logger
from config.settings import SettingsMissing, counts_together, settings
from db.figures import COUNTED_MAX
from db.scope import as_everybody
from services.oversight import figures
from services.oversight.figures import Figures
from tasks.queues import depths, usage_late_seconds

log = logger(__name__)

#: No figure is older than this and the interval at which it is asked for, unless looking takes more than half a second.
KEPT_SECONDS = 10.0
#: For the database, and again for the broker.
WAITED_SECONDS = 3.0

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Broker(NamedTuple):
    """How the broker stands."""

    messages: Mapping[str, int]
    usage_late_seconds: float | None


class Metrics:
    """Everything that this process tells a monitor, and what all have counted that share its address."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._is_one_of_several = counts_together()
        if self._is_one_of_several:
            # What is counted goes to files, and is told from there, of all processes together.
            self.requests = Requests(CollectorRegistry())
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        else:
            self.requests = Requests(self.registry)
            ProcessCollector(registry=self.registry)
        self._looks = _Looks()
        self.registry.register(self._looks)
        # Not one of the threads that requests wait for: those may all be busy, which is when a monitor should hear it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def text(self) -> bytes:
        """All of it, in the text format. Waits for looks, `WAITED_SECONDS` each at most."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, generate_latest, self.registry)

    def close(self) -> None:
        if self._is_one_of_several:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
        self._looks.close()
        self._thread.shutdown(wait=False)


async def get_metrics(request: Request) -> Response:
    """For whoever has the token of the setting; without one, for this machine alone."""
    _require_leave(request)
    metrics: Metrics = request.app.state.metrics
    return Response(await metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _require_leave(request: Request) -> None:
    """Raises `Unauthenticated`, `Forbidden`. What a proxy brings comes from anywhere, also if the proxy is here."""
    token = settings().metrics_token
    if token is not None:
        said = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(said, f"Bearer {token.get_secret_value()}".encode()):
            raise Unauthenticated("metrics need the token of CENTAVO_METRICS_TOKEN")
    elif not _is_from_here(request) or any(name in request.headers for name in _FORWARDED):
        raise Forbidden("metrics are for this machine alone; set CENTAVO_METRICS_TOKEN to let others ask with it")


def _is_from_here(request: Request) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


class _Looks(Collector):
    """Figures of the database and the broker, when they are asked for."""

    def __init__(self) -> None:
        self._database = Look(_database, kept_seconds=KEPT_SECONDS, waited_seconds=WAITED_SECONDS)
        self._broker = Look(_broker, kept_seconds=KEPT_SECONDS, waited_seconds=WAITED_SECONDS)

    def describe(self) -> Iterable[Any]:
        """Nothing: registering does not look."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        is_ok = {"database": False, "broker": False}
        for name, look, told in (("database", self._database, _of_database), ("broker", self._broker, _of_broker)):
            try:
                found: Any = look.found()
            except (Unavailable, SettingsMissing, TimeoutError) as error:
                log.warning("can't look for metrics", of=name, error=str(error) or type(error).__name__)
                continue
            is_ok[name] = True
            yield from told(found)
        help_ = "Whether figures of this could be looked at; if not, they are missing."
        yield _by("centavo_look_ok", help_, "of", {name: int(ok) for name, ok in is_ok.items()})

    def close(self) -> None:
        self._database.close()
        self._broker.close()


def _database() -> Figures:
    with as_everybody():
        return figures.read(clock.now())


def _broker() -> Broker:
    return Broker(depths(), usage_late_seconds(clock.unmoved()))


_most = f" Counted up to {COUNTED_MAX}: more means at least so many."


def _of_database(found: Figures) -> Iterator[GaugeMetricFamily]:
    if found.events_charged is not None:
        yield _one("centavo_usage_events_charged", "Events that are charged, less those voided.", found.events_charged)
    parked = GaugeMetricFamily(
        "centavo_parked", f"What waits for a person: events, and inputs that are none.{_most}", labels=("of", "reason")
    )
    for one in found.parked:
        parked.add_metric((one.of, one.reason), one.number)
    yield parked
    waiting = {one.kind: one.number for one in found.due}
    yield _by("centavo_due", f"What is due and not done, by kind.{_most}", "kind", waiting)
    help_ = "How long the oldest of what is due has been so, by kind; 0: nothing is."
    yield _by("centavo_due_oldest_seconds", help_, "kind", {one.kind: one.oldest_seconds for one in found.due})
    help_ = f"Payments that are not over, by state.{_most}"
    yield _by("centavo_payments_open", help_, "state", dict(found.payments))
    yield _by("centavo_alerts_unseen", f"Alerts that nobody has seen.{_most}", "kind", dict(found.unseen_alerts))
    help_ = "Connections to this database by what they are at; `unknown` where this user may not know."
    yield _by("centavo_database_connections", help_, "state", dict(found.connections))
    yield _one("centavo_database_connections_max", "How many the server takes.", found.connections_max)
    watched = found.watched
    yield _one("centavo_audit_differences", f"What the audit found and stands.{_most}", watched.differences)
    yield _one("centavo_collecting_paused", "1 while nothing is collected by itself.", int(watched.is_paused))
    yield from _moment("centavo_audit_finished", "When the last audit came to its end.", watched.audited_at)
    yield from _moment("centavo_beat_ticked", "When a tick of beat's last came to a worker.", watched.ticked_at)
    yield from _moment("centavo_stripe_reached", "When a worker last reached Stripe.", watched.stripe_reached_at)


def _of_broker(found: Broker) -> Iterator[GaugeMetricFamily]:
    yield _by("centavo_queue_messages", "Messages that nobody has taken.", "queue", found.messages)
    if found.usage_late_seconds is not None:
        help_ = "How long the oldest envelope of usage has been waiting, by its producer's clock."
        yield _one("centavo_usage_oldest_seconds", help_, found.usage_late_seconds)


def _moment(name: str, help_: str, at: datetime | None) -> Iterator[GaugeMetricFamily]:
    """Seconds since 1970; left out before the first time."""
    if at is not None:
        yield _one(f"{name}_timestamp_seconds", help_, at.timestamp())


def _one(name: str, help_: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_, value=value)


def _by(name: str, help_: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_, labels=(label,))
    for word, value in values.items():
        family.add_metric((word,), value)
    return family
