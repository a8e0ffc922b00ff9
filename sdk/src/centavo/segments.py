"""Segments: files of events, one frame after the other, to which is only ever added.

A frame is a mark, the length of the event, its CRC-32, and the event. The mark is not UTF-8, so no event
contains it: behind bytes that are damaged, the next frame can be found again.
"""

import errno
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from centavo.journal import EventDamaged

MARK = b"\xc3CJ1"
_HEAD = struct.Struct("<4sII")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a segment: events by offset and length, what is damaged, and how many bytes end it unfinished."""

    events: list[tuple[int, int]] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    torn: int = 0


def frame(event: bytes) -> bytes:
    return _HEAD.pack(MARK, len(event), zlib.crc32(event)) + event


def scan(data: bytes) -> Scan:
    """Find every whole event. A last frame that is cut short was never taken: `emit` had not returned."""
    found = Scan()
    at = 0
    while at < len(data):
        if (length := _whole(data, at)) is not None:
            found.events.append((at + HEAD_BYTES, length))
            at += HEAD_BYTES + length
            continue
        following = _next_whole(data, at + 1)
        if following is None and _is_begun(data, at):
            return Scan(found.events, found.damaged, len(data) - at)
        following = len(data) if following is None else following
        found.damaged.append((at, following - at))
        at = following
    return found


def _whole(data: bytes, at: int) -> int | None:
    """The length of the event whose frame is here; None if there is no frame, or one that is damaged."""
    if at + HEAD_BYTES > len(data):
        return None
    mark, length, checksum = _HEAD.unpack_from(data, at)
    event = memoryview(data)[at + HEAD_BYTES : at + HEAD_BYTES + length]
    return length if mark == MARK and len(event) == length and zlib.crc32(event) == checksum else None


def _next_whole(data: bytes, at: int) -> int | None:
    while (at := data.find(MARK, at)) >= 0:
        if _whole(data, at) is not None:
            return at
        at += 1
    return None


def _is_begun(data: bytes, at: int) -> bool:
    """Whether a frame begins here and the file ends before it does."""
    head = data[at : at + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        return head[: len(MARK)] == MARK[: len(head)]
    mark, length, _ = _HEAD.unpack(head)
    return bool(mark == MARK and at + HEAD_BYTES + length > len(data))


@dataclass(eq=False, slots=True)
class Segment:
    """One file. Those that this process writes stay open as long as an event in them may be asked for."""

    path: Path
    descriptor: int
    end: int = 0
    live: int = 0  # events that are not settled
    synced: int = 0  # how far it is known to survive a power cut
    damaged: bool = False

    @classmethod
    def create(cls, path: Path) -> "Segment":
        return cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @classmethod
    def open(cls, path: Path) -> "Segment":
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def reserve(self, size: int) -> int:
        """Where the next frame goes.

        A signal handler may emit in the middle of an emit. Python runs handlers between two calls, and there is
        none in here: so each frame has a place of its own, and counts before it is written.
        """
        at = self.end
        self.end = at + size
        self.live += 1
        return at

    def write(self, framed: bytes, at: int) -> None:
        written = os.pwrite(self.descriptor, framed, at)
        while written < len(framed):
            written += os.pwrite(self.descriptor, framed[written:], at + written)

    def read(self, offset: int, length: int) -> bytes:
        """The event at this offset. Raises `EventDamaged` when it is not what was written there, and `OSError`."""
        framed = self._read(HEAD_BYTES + length, offset - HEAD_BYTES)
        if _whole(framed, 0) != length:
            self.damaged = True
            raise EventDamaged(f"the journal's file {self.path} is damaged at byte {offset}")
        return framed[HEAD_BYTES:]

    def _read(self, length: int, offset: int) -> bytes:
        """The bytes there, fewer where the file ends before that; none where the disk has lost them."""
        kept_open = self.descriptor
        descriptor = kept_open if kept_open >= 0 else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, offset)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""
        finally:
            if descriptor != kept_open:
                os.close(descriptor)

    def scan(self) -> Scan:
        """Look for the events in it, and cut off what is torn. One that raises `OSError` is closed."""
        try:
            found = scan(self.path.read_bytes())
            if found.torn:
                os.ftruncate(self.descriptor, self.path.stat().st_size - found.torn)
            self.end = self.synced = self.path.stat().st_size
        except OSError:
            self.close()
            raise
        self.live = len(found.events)
        self.damaged = bool(found.damaged)
        return found

    def sync(self) -> None:
        end = self.end
        if end > self.synced:
            os.fsync(self.descriptor)
            self.synced = end

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Nobody needs it any more. One that is damaged is put aside instead, for a person to look at."""
        self.close()
        if self.damaged:
            self.path.replace(self.path.with_suffix(".damaged"))
        else:
            self.path.unlink(missing_ok=True)
