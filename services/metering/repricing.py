"""What is parked for want of a price goes on by itself, once there is one: found from rows by a tick.

A pass looks for the events that one of the prices added since may be for, and tries each once: what then still can't be
charged waits for the next price, and costs nothing meanwhile. A transaction that was under way while the price came may
park by the book of before, behind the pass's back; so each price is looked for once more when all of those are over.
"""

from datetime import UTC, datetime, timedelta

from billing.errors import DatabaseBusy, DatabaseSlow
from config.logging import logger
from db import repricing as rows
from db.repricing import Place, Progress, Waiting
from db.session import Connection, in_transaction
from services.alone import Identity
from services.metering.parked import Replayed, replay_waiting

log = logger(__name__)

#: Longer than a transaction may take (`db.session.LIMITS`), and than clocks of workers differ.
SETTLES = timedelta(minutes=2)
TRIED_AT_ONCE = 100
FIRST = Place("", datetime(1, 1, 1, tzinfo=UTC), "")


def replay_priced(now: datetime, put_off: set[Identity] | None = None) -> int:
    """Try some of what waits and may have its price now; how many events were looked at, 0 when nothing is left to do.

    Charged at the prices of when it occurred, once, however often and in however many processes this runs. A customer
    who is held, or slow, is put off: their events are looked for once more, and left alone by whoever comes with the
    same `put_off`.
    """
    put_off = set() if put_off is None else put_off
    begun = in_transaction(lambda connection: _begin(connection, now))
    if begun is None or begun.place is None:
        return 0
    place, after, until = begun.place, begun.done_price_id, begun.seen_price_id
    found = in_transaction(lambda connection: rows.waiting(connection, place, after, until, TRIED_AT_ONCE))

    total = sum((_replay(one, put_off, now) for one in found), Replayed())

    last = found[-1].place if found else None
    again_at = now + SETTLES if any(_whose(one) in put_off for one in found) else None
    in_transaction(lambda connection: _go_on(connection, begun, last, again_at))
    if total.tried:
        log.info("priced at last", tried=total.tried, charged=total.charged, still_parked=total.still_parked)
    return len(found)


def _whose(one: Waiting) -> Identity:
    return one.place.tenant_id, one.customer_id


def _replay(one: Waiting, put_off: set[Identity], now: datetime) -> Replayed:
    if _whose(one) in put_off:
        return Replayed()
    try:
        return replay_waiting(one.place.tenant_id, one.place.key, now)
    except (DatabaseBusy, DatabaseSlow) as error:
        log.warning("a customer can't be worked now", **one.place._asdict() | {"error": str(error)})
        put_off.add(_whose(one))
        return Replayed()


def _begin(connection: Connection, now: datetime) -> Progress | None:
    """The pass under way, or a new one, if prices were added or it is time to look once more; else None."""
    progress = rows.lock_progress(connection)
    newest = rows.newest_price(connection)
    is_new = newest > progress.seen_price_id
    if progress.place is None and not is_new and (progress.again_at is None or progress.again_at > now):
        return None
    if progress.place is None:
        again_at = now + SETTLES if is_new else None
        progress = Progress(progress.done_price_id, newest, again_at, is_last=not is_new, place=FIRST)
        rows.keep_progress(connection, progress)
    return progress


def _go_on(connection: Connection, begun: Progress, place: Place | None, again_at: datetime | None) -> None:
    """The pass has come to a place, or to its end. Another that has moved it meanwhile is right as well.

    Where somebody was put off, it is not the last.
    """
    stands = progress = rows.lock_progress(connection)
    if stands == begun:
        is_done = place is None and begun.is_last
        done = begun.seen_price_id if is_done else begun.done_price_id
        progress = begun._replace(done_price_id=done, place=place)
    if again_at is not None:
        done = min(progress.done_price_id, begun.done_price_id)
        progress = progress._replace(done_price_id=done, again_at=again_at, is_last=False)
    if progress != stands:
        rows.keep_progress(connection, progress)
