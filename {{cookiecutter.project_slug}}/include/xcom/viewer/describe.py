"""Describe a payload for people: the table of which function does it for which codec.

Runs in the child process. A description is a dict of text, numbers, and lists that JSON can hold. Its
``kind`` names the macro in ``templates/parts.html`` that shows it. Nothing that a payload names is
imported or built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import codecs
from ..codecs.base import HANDLE_KINDS
from ..codecs.zip_bundle import is_bundle
from ..errors import PayloadCorruptError
from . import arrays, blobs, files, frames, items, trees, zips
from .pipe import PipedFile, Question, Window

__all__ = ["describe"]

Describe = Callable[[PipedFile, Question], dict[str, Any]]


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe a payload from as few of its bytes as possible.

    Raises:
        PayloadCorruptError: Not of its format, or no codec here reads that version.
        PayloadTooLargeError: Too large to show.
    """
    if question.codec not in HANDLE_KINDS:
        codecs.find(question.codec, question.version)
    elif question.version != 1:
        raise PayloadCorruptError(f"version {question.version} of a {question.codec} is not known here")
    return _BY_CODEC.get(question.codec, blobs.describe)(file, question)


def _describe_tagged(file: PipedFile, question: Question) -> dict[str, Any]:
    if not is_bundle(memoryview(file.range(0, 4))):
        return trees.describe(file, question)
    parts = zips.members(file)
    name = question.part or "value.json"
    if name not in parts:
        raise PayloadCorruptError(f"no part has this name; the parts are {', '.join(list(parts)[:20])}")
    start, size = parts[name]
    describe_part = _BY_EXTENSION.get(name.partition(".")[2], blobs.describe)
    return {
        **describe_part(Window(file, start, size), question),
        "part": name,
        "span": [start, size],
        "parts": [{"name": part, "bytes": size} for part, (_, size) in parts.items()],
    }


def _describe_items(file: PipedFile, question: Question) -> dict[str, Any]:
    if not question.part:
        return items.describe(file, question)
    part, name, span = items.open_part(file, question)
    shown = _BY_EXTENSION.get(name.partition(".")[2], blobs.describe)(part, question)
    return {**shown, "part": question.part, "span": span}


_BY_CODEC: dict[str, Describe] = {
    "arrow-table": frames.describe,
    "bytes": blobs.describe,
    "file": files.describe,
    "items": _describe_items,
    "json": trees.describe,
    "npy": arrays.describe,
    "pandas-frame": frames.describe,
    "polars-frame": frames.describe,
    "table": frames.describe,
    "tagged-json": _describe_tagged,
}
_BY_EXTENSION: dict[str, Describe] = {
    "arrow": frames.describe,
    "json": trees.describe,
    "npy": arrays.describe,
    "parquet": frames.describe,
}
