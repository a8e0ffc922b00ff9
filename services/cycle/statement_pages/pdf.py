"""A page on paper: A4, set by Typst, in a process of its own."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import msgspec

from billing.errors import BrokenInvariant
from services.cycle.statement_pages.pages import Page

_PROGRAM = Path(__file__).with_name("typesetting.py")

SECONDS_MAX = 120
"""Five hundred lines take one, five thousand take forty."""


def printed(page: Page, issued_at: datetime) -> bytes:
    """The page as PDF. It carries the moment of issue instead of one of its own: the same page is the same bytes.

    Typst keeps what it has set for the next time, some hundred megabytes; a process that ends gives them back, and
    ends alone should it stumble. Letters that our fonts lack are taken from those of the machine, if it has any.
    Raises `BrokenInvariant` if the page can't be set.
    """
    # -P: or names beside the program would hide those of Python's own library.
    command = [sys.executable, "-P", str(_PROGRAM), str(int(issued_at.timestamp()))]
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(page), capture_output=True, check=False, timeout=SECONDS_MAX
        )
    except subprocess.TimeoutExpired as late:
        raise BrokenInvariant(f"{page.title}: not set within {SECONDS_MAX} seconds") from late
    if done.returncode:
        raise BrokenInvariant(f"{page.title}: {done.stderr.decode(errors='replace')[-500:].strip()}")
    return done.stdout
