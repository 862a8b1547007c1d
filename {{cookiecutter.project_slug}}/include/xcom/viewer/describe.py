"""Describe a payload for people: which function does it for which codec.

Runs in the child process. A description is text, numbers, and lists that JSON can hold; ``kind`` names
the macro of ``templates/parts.html`` that shows it. Nothing is built of what the payload names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import codecs
from ..codecs.zip_bundle import is_bundle
from . import array, blob, bundle, frame, tree
from .pipe import PipedFile

__all__ = ["describe"]

Describer = Callable[[PipedFile, dict[str, Any]], dict[str, Any]]


def describe(file: PipedFile, question: dict[str, Any]) -> dict[str, Any]:
    """Describe a payload from as few of its bytes as will do.

    Args:
        file: The object. What is read of it comes from the store.
        question: ``codec`` and ``version``; ``row`` and ``column`` of a frame, ``index`` of an array,
            ``start`` of a list, or ``part`` of a bundle to show. Only ``codec`` is required.

    Raises:
        PayloadCorruptError: It is not of its format, or no codec here reads that version.
        PayloadTooLargeError: It is too large to look at.
    """
    name = question["codec"]
    codecs.find(name, question.get("version", 1))
    return _DESCRIBERS.get(name, blob.describe)(file, question)


def _describe_tagged(file: PipedFile, question: dict[str, Any]) -> dict[str, Any]:
    if not is_bundle(memoryview(file.range(0, 4))):
        return tree.describe(file, question)
    found = bundle.open_part(file, question.get("part"))
    shown = _DESCRIBERS.get(bundle.codec_of(found.name), blob.describe)(found.window, question)
    return {**shown, **found.facts}


_DESCRIBERS: dict[str, Describer] = {
    "arrow-table": frame.describe,
    "bytes": blob.describe,
    "json": tree.describe,
    "legacy-json": tree.describe,
    "npy": array.describe,
    "pandas-frame": frame.describe,
    "polars-frame": frame.describe,
    "tagged-json": _describe_tagged,
}
