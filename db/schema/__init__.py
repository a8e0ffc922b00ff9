"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from db.schema import access, alerting, archiving, auditing, collecting, metering, months, quotas, reserving
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
    "reserving",
]
