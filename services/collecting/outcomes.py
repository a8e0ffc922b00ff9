"""What became of payments that somebody waits for."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from db import recorded as rows
from db.recorded import Outcome
from db.scope import as_everybody
from db.session import in_transaction


def look(payment_ids: Sequence[UUID]) -> Mapping[UUID, Outcome]:
    """How payments stand now, by id, whosesoever: one statement for all who wait. Takes no lock.

    Whoever asks here has been told these ids as their own; it runs for everybody, so never in a request of a tenant's.
    """
    with as_everybody():
        found = in_transaction(lambda connection: rows.outcomes(connection, payment_ids))
    return {one.payment_id: one for one in found}
