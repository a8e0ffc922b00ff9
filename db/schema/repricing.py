"""The table of how far prices that were added have been taken to what waits for them."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Table, event, text

from db.schema.base import Moment, Text, ddl, metadata, only_one_row

price_replays = Table(
    "price_replays",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column(
        "done_price_id",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="what waited for prices up to this one was tried again, for good",
    ),
    Column(
        "seen_price_id",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="the last price that a pass has begun for",
    ),
    Column("again_at", Moment, comment="when those are looked for once more; NULL: not needed"),
    Column("is_last", Boolean, nullable=False, server_default=text("false"), comment="no pass follows this one"),
    Column("place_tenant_id", Text, comment="the event that the pass under way came to; NULL: none is under way"),
    Column("place_recorded_at", Moment),
    Column("place_key", Text),
    only_one_row(),
    CheckConstraint("done_price_id <= seen_price_id", name="order"),
    CheckConstraint(
        "(place_tenant_id IS NULL) = (place_recorded_at IS NULL) AND (place_tenant_id IS NULL) = (place_key IS NULL)",
        name="place",
    ),
    comment="Up to which price parked events were replayed by themselves, and where the pass under way stands.",
)

event.listen(price_replays, "after_create", ddl("INSERT INTO price_replays DEFAULT VALUES"))
