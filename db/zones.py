"""Time zones as Postgres knows them."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from psycopg import errors

from db.session import Connection


def local_times(connection: Connection, zone: str, moments: Sequence[datetime]) -> list[datetime] | None:
    """What time it is in a zone at each moment; None when there is no such zone. The transaction goes on."""
    asked = b"SELECT m.at AT TIME ZONE %s FROM unnest(%s::timestamptz[]) WITH ORDINALITY AS m(at, n) ORDER BY n"
    try:
        with connection.transaction():
            return [cast("datetime", at) for (at,) in connection.execute(asked, (zone, list(moments)))]
    except errors.InvalidParameterValue:
        return None
