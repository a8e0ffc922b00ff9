"""A journal on disk: what a process could not see through, the next one takes over.

Every process writes to segments of its own *lane*, `<lane>-<number>.events`, and holds a lock (flock) on
`<lane>.lock` while it lives. The kernel gives the lock back whatever ends the process. So whoever gets the
lock of another lane knows that its owner is gone, and may take over what lies there: its files become those of the
one who takes over. Neither lanes nor open files grow in number with the processes that have died.
"""

import fcntl
import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from centavo.ids import uuid7
from centavo.journal import EventDamaged, Kept
from centavo.limits import JOURNAL_BYTES_MAX
from centavo.segments import HEAD_BYTES, Scan, Segment, frame

SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENTS_MAX = 64  # each is an open file
#: A segment in which nothing waits is begun anew when it is larger than this: a crash then repeats little.
FRESH_FROM_BYTES = 256 * 1024
_WORD = 32
_LENGTH = (1 << _WORD) - 1

logger = logging.getLogger("centavo")


class DiskJournal:
    """Events in files of one directory, which processes may share.

    An event that was kept is a number: its segment, its offset there, and its length, 32 bits each.
    """

    durable = True

    def __init__(self, directory: str | os.PathLike[str], bytes_max: int = JOURNAL_BYTES_MAX) -> None:
        if bytes_max < 1:
            raise ValueError(f"journal_bytes_max is {bytes_max}; it must be at least 1")
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes_max = bytes_max
        self._segment_bytes = min(max(bytes_max // SEGMENTS_MAX, SEGMENT_BYTES), max(bytes_max // 4, 1))
        self._segments: dict[int, Segment] = {}
        self._numbers = itertools.count()
        self._active: int | None = None
        self._lane: str | None = None
        self._locks: dict[str, int] = {}
        self._inherited: set[str] = set()
        self._bytes = 0
        self._has_new_file = False

    @property
    def directory(self) -> Path:
        return self._directory

    def take_over(self) -> Iterator[Kept]:
        names = {path.name.partition(".")[0].partition("-")[0] for path in self._paths("*.lock", "*.events")}
        for lane in sorted(names - {self._lane}):
            try:
                if lane in self._locks or not self._lock(lane):
                    continue
            except OSError as error:  # another user's, for one
                _say_unopened(self._lock_path(lane), error)
                continue
            self._inherited.add(lane)
            for path in self._paths(f"{lane}-*.events"):
                yield from self._open(path)
            self._drop_idle_locks()

    def append(self, event: bytes) -> Kept:
        framed = frame(event)
        number, segment = self._writable()
        at = segment.reserve(len(framed))
        self._bytes += len(framed)
        kept = number << 2 * _WORD | (at + HEAD_BYTES) << _WORD | len(event)
        try:
            segment.write(framed, at)
        except OSError:
            # What is half written ends its file: nothing is put behind it.
            self._active = None
            self.settle((kept,))
            raise
        return kept

    def has_room(self, size: int) -> bool:
        # An event larger than the whole journal still passes, alone: refusing it for ever would lose it.
        return self._bytes + size + HEAD_BYTES <= self._bytes_max or not any(s.live for s in self._segments.values())

    def size(self, kept: Kept) -> int:
        return int(kept & _LENGTH)

    def read(self, kept: Kept) -> bytes:
        segment = self._segments[kept >> 2 * _WORD]
        offset, length = kept >> _WORD & _LENGTH, kept & _LENGTH
        try:
            return segment.read(offset, length)
        except EventDamaged:
            _say_damaged(segment.path, offset - HEAD_BYTES, HEAD_BYTES + length)
            raise

    def settle(self, kept: Iterable[Kept]) -> None:
        for number, count in Counter(one >> 2 * _WORD for one in kept).items():
            segment = self._segments.get(number)
            if segment is None:
                continue
            segment.live -= count
            is_done_with = number != self._active or segment.end >= FRESH_FROM_BYTES or segment.damaged
            if segment.live <= 0 and is_done_with:
                self._remove(number, segment)

    def sync(self) -> None:
        if self._has_new_file:
            self._has_new_file = False
            self._sync_directory()
        for segment in tuple(self._segments.values()):
            try:
                segment.sync()
            except OSError as error:
                if segment.descriptor >= 0:
                    logger.warning("the journal's file %s can't be synced (%s)", segment.path, error)

    def close(self) -> None:
        self._active = None
        for number, segment in tuple(self._segments.items()):
            if segment.live <= 0:
                self._remove(number, segment)
            segment.close()
        used = {segment.path.name.partition("-")[0] for segment in self._segments.values()}
        self._segments = {}
        for lane in self._locks.keys() - used:
            self._drop_lock(lane)
        for descriptor in self._locks.values():
            os.close(descriptor)
        self._locks, self._inherited, self._lane = {}, set(), None

    def for_child(self) -> "DiskJournal":
        # Closing copies of the descriptors leaves the parent's locks alone; keeping them would hold the locks
        # for as long as the child lives.
        for descriptor in self._locks.values():
            os.close(descriptor)
        for segment in self._segments.values():
            segment.close()
        return DiskJournal(self._directory, self._bytes_max)

    def _paths(self, *patterns: str) -> list[Path]:
        return sorted(path for pattern in patterns for path in self._directory.glob(pattern))

    def _writable(self) -> tuple[int, Segment]:
        number = self._active
        if number is not None and self._segments[number].end < self._segment_bytes:
            return number, self._segments[number]
        fresh = next(self._numbers)
        segment = Segment.create(self._segment_path(fresh))
        self._segments[fresh] = segment
        self._active = fresh
        self._has_new_file = True
        if number is not None and (full := self._segments.get(number)) and full.live <= 0:
            self._remove(number, full)
        return fresh, segment

    def _segment_path(self, number: int) -> Path:
        """In this process's lane, which is begun when it is needed."""
        if self._lane is None:
            self._lane = self._new_lane()
        return self._directory / f"{self._lane}-{number:08}.events"

    def _new_lane(self) -> str:
        while not self._lock(lane := uuid7().hex):
            pass  # somebody who takes over was quicker than we; it finds nothing there
        return lane

    def _lock(self, lane: str) -> bool:
        path = self._lock_path(lane)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        is_held = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have removed the file: a lock on that would be nobody's.
            is_held = path.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            if is_held:
                self._locks[lane] = descriptor
            else:
                os.close(descriptor)
        return is_held

    def _lock_path(self, lane: str) -> Path:
        return self._directory / f"{lane}.lock"

    def _open(self, path: Path) -> Iterator[Kept]:
        number = next(self._numbers)
        try:
            segment = Segment.open(path)
            found = segment.scan()
        except OSError as error:
            _say_unopened(path, error)
            return
        segment.close()  # there may be more of them than a process may have open
        with suppress(OSError):  # where it can't be renamed, it stays in its lane, and that is held
            segment.path = path.rename(self._segment_path(number))
        self._segments[number] = segment
        self._bytes += segment.end
        _say(segment.path, found)
        for offset, length in found.events:
            yield number << 2 * _WORD | offset << _WORD | length
        if not found.events:
            self._remove(number, segment)

    def _remove(self, number: int, segment: Segment) -> None:
        self._segments.pop(number, None)
        if number == self._active:
            self._active = None
        self._bytes -= segment.end
        segment.remove()
        self._drop_idle_locks()

    def _drop_idle_locks(self) -> None:
        """Leave the lanes of the dead in which nothing is left."""
        used = {segment.path.name.partition("-")[0] for segment in self._segments.values()}
        for lane in self._inherited - used:
            self._inherited.discard(lane)
            self._drop_lock(lane)

    def _drop_lock(self, lane: str) -> None:
        self._lock_path(lane).unlink(missing_ok=True)
        os.close(self._locks.pop(lane))

    def _sync_directory(self) -> None:
        with suppress(OSError):
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _say_unopened(path: Path, error: OSError) -> None:
    logger.warning("the journal's file %s can't be opened (%s): usage there waits for a producer that may", path, error)


def _say(path: Path, found: Scan) -> None:
    if found.torn:
        logger.info("the journal's file %s ended in the middle of an event: %d bytes cut", path, found.torn)
    for offset, length in found.damaged:
        _say_damaged(path, offset, length)


def _say_damaged(path: Path, offset: int, length: int) -> None:
    logger.error(
        "the journal's file %s is damaged: %d bytes from byte %d on can't be read, and usage in them is lost "
        "unless it is sent again; the rest is sent, and the file kept as *.damaged",
        path,
        length,
        offset,
    )
