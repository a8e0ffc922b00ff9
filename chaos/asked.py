"""What was asked of holds, by the logs of whoever asked. Imports nothing of the project.

A wish is written down before it is asked for, its answer after. Who is killed in between leaves it open whether there
is a hold. Lines: `W <wish>`, `G <granted>`, `N <refused>`, `L <release that is asked for>`, `D <done>`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

Named = tuple[str, str]
"""tenant, and the key of a wish or the id of a hold"""


@dataclass(slots=True)
class Wish:
    """A hold that was asked for; what came of it, if anybody heard."""

    customer_id: str
    currency: str
    amount: Decimal
    seconds: int
    hold_id: str | None = None
    refused: str | None = None


@dataclass(slots=True)
class Asked:
    """All that was asked."""

    wishes: dict[Named, Wish] = field(default_factory=dict)
    released: dict[Named, bool] = field(default_factory=dict)
    """holds whose release was asked for; whether the answer came"""

    def add(self, kind: str, said: dict[str, Any]) -> None:
        """Take one line of a log."""
        tenant = said["tenant_id"]
        match kind:
            case "W":
                wish = Wish(said["customer_id"], said["currency"], Decimal(said["amount"]), said["seconds"])
                self.wishes[tenant, said["key"]] = wish
            case "G":
                self.wishes[tenant, said["key"]].hold_id = said["hold_id"]
            case "N":
                self.wishes[tenant, said["key"]].refused = said["code"]
            case "L":
                self.released.setdefault((tenant, said["hold_id"]), False)
            case "D":
                self.released[tenant, said["hold_id"]] = True


def read_wishes(logs: Iterable[Path]) -> Asked:
    """What these logs say of holds. The last line may be cut short."""
    asked = Asked()
    for log in logs:
        for line in log.read_bytes().split(b"\n")[:-1]:
            kind, _, said = line.partition(b" ")
            if kind in {b"W", b"G", b"N", b"L", b"D"}:
                asked.add(kind.decode(), json.loads(said))
    return asked
