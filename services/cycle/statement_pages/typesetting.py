"""Sets one page and ends: a program that is given a `Page` as JSON and gives back a PDF. `pdf.py` starts it.

It runs by its path and imports nothing of ours, so that it starts in no time.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import typst

_HERE = Path(__file__).parent


def main() -> None:
    """Read the page from the input, write the PDF to the output. The argument is when it says it was made, Unix time.

    What a page says reaches Typst as data, never as its source, and Typst reads no files but those beside this one.
    """
    pdf = typst.compile(
        _HERE / "page.typ",
        root=_HERE,
        font_paths=[_HERE / "fonts"],
        sys_inputs={"page": sys.stdin.buffer.read().decode()},
        timestamp=datetime.fromtimestamp(int(sys.argv[1]), UTC),
    )
    sys.stdout.buffer.write(pdf)


if __name__ == "__main__":
    main()
