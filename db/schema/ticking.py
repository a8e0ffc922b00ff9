"""The table of beat's last tick."""

from sqlalchemy import Boolean, Column, Table, event, text

from db.schema.base import Moment, ddl, metadata, only_one_row

last_tick = Table(
    "last_tick",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("ticked_at", Moment, comment="NULL before the first time"),
    only_one_row(),
    comment="When a tick of beat's last came through to a worker.",
)

event.listen(last_tick, "after_create", ddl("INSERT INTO last_tick DEFAULT VALUES"))
