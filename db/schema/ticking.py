"""The table of when beat and Stripe were last there."""

from sqlalchemy import Boolean, Column, Table, event, text

from db.schema.base import Moment, ddl, metadata, only_one_row

last_seen = Table(
    "last_seen",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("ticked_at", Moment, comment="a tick of beat's came through to a worker; NULL before the first time"),
    Column("stripe_reached_at", Moment, comment="a worker reached Stripe; likewise"),
    only_one_row(),
    comment="When what everything waits for was last seen at work.",
)

event.listen(last_seen, "after_create", ddl("INSERT INTO last_seen DEFAULT VALUES"))
