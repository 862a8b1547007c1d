"""Read files that other people wrote, in any encoding, and append lines only where that does no harm."""

from __future__ import annotations

import codecs
import os
import shlex
from pathlib import Path
from typing import NamedTuple

__all__ = ["TextFile", "append_command", "read_text"]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextFile(NamedTuple):
    """A file's text.

    Attributes:
        text: Empty if there is no file, or it is not text.
        refusal: Why no line can be appended; empty if one can.
    """

    text: str
    refusal: str


def read_text(path: Path) -> TextFile:
    """Read a file; do not fail whatever it holds."""
    try:
        data = path.read_bytes()
    except OSError:
        return TextFile("", "")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        # Of the encodings that people meet, these share ASCII with what is appended.
        text, encoding = data.decode("latin-1"), "latin-1"
    if encoding in ("utf-16", "utf-32"):
        return TextFile(text, f"it is {encoding.upper()}; save it as UTF-8")
    if "\0" in text:
        return TextFile("", "it is not text, or UTF-16 without a byte order mark; save it as UTF-8")
    return TextFile(text, "")


def append_command(path: Path, lines: list[str]) -> str:
    """Return the shell command that appends lines to a file."""
    # An empty line first: the last line of the file may lack its end.
    return f"printf '%s\\n' '' {' '.join(map(shlex.quote, lines))} >> {shlex.quote(os.path.relpath(path))}"
