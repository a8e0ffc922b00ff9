"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from sqlalchemy import event

from db.policies import protect
from db.schema import (
    access,
    alerting,
    archiving,
    auditing,
    collecting,
    metering,
    months,
    quotas,
    repricing,
    reserving,
    shadowing,
    sql_face,
    tenancy,
    ticking,
)
from db.schema.base import metadata

__all__ = [
    "access",
    "alerting",
    "archiving",
    "auditing",
    "collecting",
    "metadata",
    "metering",
    "months",
    "quotas",
    "repricing",
    "reserving",
    "shadowing",
    "sql_face",
    "tenancy",
    "ticking",
]

event.listen(metadata, "after_create", lambda _, connection, **__: protect(connection))
