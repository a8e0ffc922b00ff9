"""A use case in a process of its own, with this process's settings: `python -m tests.services.elsewhere …`."""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from services.books.credits import Grant, grant
from services.collecting.collect import collect
from services.collecting.gateways import gateway
from services.metering.usage import record_usage

ROOT = Path(__file__).resolve().parents[2]


def started(*arguments: str) -> subprocess.Popen[str]:
    """Begin it; what it says on either stream is kept for `communicate`."""
    command = [sys.executable, "-m", "tests.services.elsewhere", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status and what it said, when it is done."""
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def main(what: str, *arguments: str) -> None:
    now = datetime.now(UTC)
    match what, arguments:
        case "record", files:
            for name in files:
                record_usage(Path(name).read_bytes(), now)
        case "grant", (tenant_id, customer_id, currency, amount, key):
            granted = grant(Grant(tenant_id, customer_id, currency, Decimal(amount), "promo", "bonus", key), now)
            sys.stdout.write("new" if granted.is_new else "again")
        case "collect", (tenant_id, payment_id):
            sys.stdout.write(str(collect(tenant_id, UUID(payment_id), gateway(), now)))
        case _:
            sys.exit(f"no such use case: {what} {arguments}")


if __name__ == "__main__":
    main(*sys.argv[1:])
