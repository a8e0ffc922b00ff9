"""The files of an archive: lines of JSON, compressed, and a manifest that says what is in them.

A folder has `usage.jsonl.gz`, each line an event as its table had it, with its ledger entry: `{"event": {...}, "entry":
{...}}`; and `manifest.json`. Nothing is believed that was not read back from the disk.
"""

import gzip
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from uuid import UUID

import msgspec

from billing.errors import BrokenInvariant, CentavoError
from billing.money import ZERO, written

USAGE = "usage.jsonl.gz"
MANIFEST = "manifest.json"
#: Of zlib's levels: half the time of the usual one, for a tenth more bytes.
LEVEL = 3
_BLOCK_BYTES = 1024 * 1024
#: Of a tenant's folder; file systems take 255.
NAME_BYTES_MAX = 200


class ArchiveDamaged(CentavoError):
    """A file of an archive is not what was written."""


class EventOfLine(msgspec.Struct):
    """What there is to know of an archived event to take it out of the tables."""

    key: str
    tokens: int
    cost: Decimal
    currency: str | None
    period_start: datetime


class EntryOfLine(msgspec.Struct):
    """The same of its ledger entry."""

    wallet_id: int
    seq: int
    amount: Decimal


class Line(msgspec.Struct):
    """One line of a file."""

    event: EventOfLine
    entry: EntryOfLine | None


_decode = msgspec.json.Decoder(Line).decode


@dataclass(slots=True)
class Figures:
    """What a file holds: counts, sums, and the hash of its bytes."""

    events: int = 0
    entries: int = 0
    tokens: int = 0
    costs: dict[str, Decimal] = field(default_factory=dict)
    """by currency"""
    size_bytes: int = 0
    sha256: bytes = b""

    @property
    def cost(self) -> Decimal:
        """Of all currencies together: a check sum."""
        return sum(self.costs.values(), ZERO)

    def count(self, line: Line) -> None:
        """Note a line. Raises `BrokenInvariant` where its entry and its event contradict."""
        event, entry = line.event, line.entry
        if (event.cost if entry is None else entry.amount + event.cost) != ZERO:
            raise BrokenInvariant("an event and its entry differ; run `centavo audit`", key=event.key)
        self.events += 1
        self.entries += entry is not None
        self.tokens += event.tokens
        if event.cost and event.currency is not None:
            self.costs[event.currency] = self.costs.get(event.currency, ZERO) + event.cost


def folder_of(root: Path, tenant_id: str, month: str, installation: UUID) -> Path:
    """Where an installation has a tenant's archives of a month; whatever the tenant's name is, within the root.

    Numbers of archives begin at 1 in each database, and these files are the only ones: no other may write there.

    >>> str(folder_of(Path("/archive"), "../acme", "2026-10", UUID(int=7 << 96)))
    '/archive/%2E%2E%2Facme/2026-10-00000007'
    """
    name = quote(tenant_id, safe="").replace(".", "%2E")
    if len(name) > NAME_BYTES_MAX:
        name = f"{name[:NAME_BYTES_MAX]}-{sha256(tenant_id.encode()).hexdigest()[:16]}"
    return root.absolute() / name / f"{month}-{installation.hex[:8]}"


def write(folder: Path, pages: Iterable[list[str]]) -> Figures:
    """Write a file of these lines, read it back, and say what it holds.

    It is on the disk afterwards, whatever happens to the machine. What a writer before left there is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{USAGE}.part"
    said = Figures()
    # No time in the header: the same lines are the same bytes.
    with _private(part) as raw:
        with gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file:
            for page in pages:
                for line in page:
                    said.count(_decode(line))
                file.write("".join(f"{line}\n" for line in page).encode())
        raw.flush()
        _sync(raw.fileno())
    part.replace(folder / USAGE)
    _sync_folders(folder)
    found = figures(folder)
    if (found.events, found.entries, found.tokens, found.costs) != (said.events, said.entries, said.tokens, said.costs):
        raise ArchiveDamaged(f"{folder / USAGE} holds {found}, and {said} was written")
    return found


def write_manifest(folder: Path, tenant_id: str, month: str, archive_id: int, found: Figures, now: datetime) -> None:
    """Write beside a file what it holds, for people and for other programs."""
    document = {
        "v": 1,
        "tenant_id": tenant_id,
        "month": month,
        "archive_id": archive_id,
        "written_at": now,
        "file": USAGE,
        "events": found.events,
        "entries": found.entries,
        "tokens": found.tokens,
        "costs": {currency: written(cost) for currency, cost in sorted(found.costs.items())},
        "bytes": found.size_bytes,
        "sha256": found.sha256.hex(),
    }
    part = folder / f"{MANIFEST}.part"
    with _private(part) as file:
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        file.flush()
        _sync(file.fileno())
    part.replace(folder / MANIFEST)
    _sync_folders(folder)


def figures(folder: Path) -> Figures:
    """What a file holds, read from the disk."""
    found = Figures()
    for line in lines(folder, found):
        found.count(line)
    return found


def lines(folder: Path, seen: Figures | None = None) -> Iterator[Line]:
    """The lines of a file; bytes and hash of what was read are noted in `seen`. Raises `ArchiveDamaged`."""
    path = folder / USAGE
    try:
        with path.open("rb") as raw:
            noted = _Noting(raw)
            with gzip.GzipFile(fileobj=noted) as file:  # type: ignore[call-overload]
                for line in file:
                    yield _decode(line)
            if seen is not None:
                seen.size_bytes, seen.sha256 = noted.bytes, noted.hash.digest()
    except (OSError, EOFError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArchiveDamaged(f"{path} can't be read: {error}") from error


class _Noting:
    """A file that notes what is read from it."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.hash = sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.hash.update(block)
        self.bytes += len(block)
        return block


def _private(path: Path) -> BinaryIO:
    """A new file, in place of one that may be there, for our own eyes: it has what customers did."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folders(folder: Path) -> None:
    """So that the names last as well: of the file in its folder, of that in the month's, of that in the tenant's."""
    for each in (folder, folder.parent, folder.parent.parent, folder.parent.parent.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)
