"""Has this worker been asked to stop? One byte, shared by the main process and its pool children.

A child that waits for a database would keep a warm shutdown waiting for ever; it looks here instead.
"""

import mmap

_flag = mmap.mmap(-1, 1)


def request() -> None:
    """The worker is shutting down."""
    _flag[0] = 1


def clear() -> None:
    """The worker has started."""
    _flag[0] = 0


def is_requested() -> bool:
    """Whether a wait should end."""
    return _flag[0] == 1
