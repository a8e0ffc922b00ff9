"""How long each fault lasted, and after it, until work went on and until all that had been emitted before was recorded.

How long it lasts is a server's own affair, where one was killed: it is over when the server answers again. What comes
after that is ours.

Taken from when the server committed each event, by its own clock, and when producers emitted it, by theirs, which are
the machine's both. Only faults that stood alone count: of two at a time nobody knows which one it was.
"""

import statistics
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chaos.emitted import Emitted, Key
from chaos.faults import Fault

#: How long before a fault an event may have been emitted to be among its own.
BEFORE_SECONDS = 3.0
#: Something earlier had left a backlog if, of what was emitted for so long before that, more than this share was not
#: recorded when the fault began. A few come late by their nature: what is settled, sent again, or taken back.
BACKLOG_SECONDS = 10.0
BACKLOG_SHARE_MAX = 0.02
#: How long before it nothing else may have gone wrong.
APART_SECONDS = 1.0


class Sample(NamedTuple):
    """How long one fault that stood alone took, in seconds.

    `lasted` is from its beginning until it was over, and from then on `first` is until the first commit, `back` until
    all that was emitted shortly before the fault, or while it lasted, is recorded. That is None where the next fault
    came before, or an earlier one had left something to do.
    """

    kind: str
    lasted: float
    first: float
    back: float | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """Of one kind of fault: how often it happened, how often alone, and the seconds of the latter; None for none."""

    kind: str
    times: int
    alone: int
    lasted_median: float | None
    lasted_max: float | None
    first_median: float | None
    first_max: float | None
    back_median: float | None
    back_max: float | None


def measured(faults: Sequence[Fault], emitted: Emitted, committed: Mapping[Key, float]) -> list[Sample]:
    """The faults of a run that stood alone."""
    pairs = sorted(
        (variants[0].first_at, committed[key]) for key, variants in emitted.events.items() if key in committed
    )
    emitted_at = [pair[0] for pair in pairs]
    commits = sorted(set(committed.values()))
    samples = []
    for fault in faults:
        lo, hi = bisect_left(emitted_at, fault.began_at - BEFORE_SECONDS), bisect_right(emitted_at, fault.over_at)
        back_at = max((committed_at for _, committed_at in pairs[lo:hi]), default=fault.over_at)
        following = bisect_right(commits, fault.over_at)
        if following < len(commits) and _is_alone(fault, faults, commits[following]):
            lasted, first = fault.over_at - fault.began_at, commits[following] - fault.over_at
            is_back = _is_alone(fault, faults, back_at) and not _is_behind(fault, pairs[:lo])
            samples.append(Sample(fault.kind, lasted, first, max(back_at - fault.over_at, 0.0) if is_back else None))
    return samples


def recoveries(kinds: Iterable[str], samples: Iterable[Sample]) -> list[Recovery]:
    """A row for each kind, of all that happened and those that stood alone, in the order of the names."""
    times = Counter(kinds)
    of_kind: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_kind[sample.kind].append(sample)
    return [_row(kind, times[kind], of_kind[kind]) for kind in sorted(times)]


def _is_alone(fault: Fault, faults: Iterable[Fault], until: float) -> bool:
    """Whether no other fault touched the time from shortly before this one until then."""
    since = fault.began_at - APART_SECONDS
    return all(other is fault or other.over_at < since or other.began_at > until for other in faults)


def _is_behind(fault: Fault, earlier: Sequence[tuple[float, float]]) -> bool:
    """Whether much of what was emitted some time before the fault was not recorded yet when it began."""
    since = bisect_left(earlier, (fault.began_at - BEFORE_SECONDS - BACKLOG_SECONDS,))
    late = [committed_at > fault.began_at for _, committed_at in earlier[since:]]
    return sum(late) > BACKLOG_SHARE_MAX * len(late)


def _row(kind: str, times: int, samples: Sequence[Sample]) -> Recovery:
    lasted = _middle_and_worst([one.lasted for one in samples])
    first = _middle_and_worst([one.first for one in samples])
    back = _middle_and_worst([one.back for one in samples if one.back is not None])
    return Recovery(kind, times, len(samples), *lasted, *first, *back)


def _middle_and_worst(seconds: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    return (statistics.median(seconds), max(seconds)) if seconds else (None, None)
