"""What is parked for want of a price goes on by itself, once there is one: found from rows by a tick.

A pass looks for the events that one of the prices added since may be for, and tries each once: what then still can't be
charged waits for the next price, and costs nothing meanwhile. A transaction that was under way while the price came may
park by the book of before, behind the pass's back; so each price is looked for once more when all of those are over.
"""

from datetime import UTC, datetime, timedelta

from config.logging import logger
from db import repricing as rows
from db.repricing import Place, Progress
from db.session import Connection, in_transaction
from services.metering.parked import Replayed, replay_waiting

log = logger(__name__)

#: Longer than a transaction may take (`db.session.LIMITS`), and than clocks of workers differ.
SETTLES = timedelta(minutes=2)
TRIED_AT_ONCE = 100
FIRST = Place("", datetime(1, 1, 1, tzinfo=UTC), "")


def replay_priced(now: datetime) -> int:
    """Try some of what waits and may have its price now; how many events were tried, 0 when nothing is left to do.

    Charged at the prices of when it occurred, once, however often and in however many processes this runs.
    """
    begun = in_transaction(lambda connection: _begin(connection, now))
    if begun is None or begun.place is None:
        return 0
    place, after, until = begun.place, begun.done_price_id, begun.seen_price_id
    found = in_transaction(lambda connection: rows.waiting(connection, place, after, until, TRIED_AT_ONCE))

    total = sum((replay_waiting(one.tenant_id, one.key, now) for one in found), Replayed())

    in_transaction(lambda connection: _go_on(connection, begun, found[-1] if found else None))
    if total.tried:
        log.info("priced at last", tried=total.tried, charged=total.charged, still_parked=total.still_parked)
    return len(found)


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


def _go_on(connection: Connection, begun: Progress, place: Place | None) -> None:
    """The pass has come to a place, or to its end. Another that has moved it meanwhile is right as well."""
    if rows.lock_progress(connection) != begun:
        return
    is_done = place is None and begun.is_last
    done = begun.seen_price_id if is_done else begun.done_price_id
    rows.keep_progress(connection, begun._replace(done_price_id=done, place=place))
