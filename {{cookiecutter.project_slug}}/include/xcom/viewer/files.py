"""Describe a file or folder that a task returned, by what is in it."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from ..errors import PayloadCorruptError
from . import arrays, blobs, frames, limits, trees, zips
from .cells import cell, cut
from .pipe import PipedFile, Question, Window

__all__ = ["describe"]

_CSV_BYTES = 256 * 1024
_FRAME_HEADS = (b"PAR1", b"ARROW1\0\0")
_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe a file; of a folder its list of files, or the file ``question.part``.

    Raises:
        PayloadCorruptError: The folder has no such file, or it is not what it begins as.
    """
    if file.range(0, 4) not in _ZIP_HEADS:
        return _describe_content(file, str(question.facts.get("name", "")), question)
    try:
        found = {name: info for name, info in zips.entries(file).items() if not name.endswith("/")}
    except PayloadCorruptError:
        return blobs.describe(file, question)
    listing = {"parts": [{"name": name, "bytes": info.file_size} for name, info in found.items()]}
    if not question.part:
        return {"kind": "folder", "part": "", **listing}
    if question.part not in found:
        raise PayloadCorruptError(f"the folder has no file {cut(question.part)!r}")
    ((start, size),) = zips.locate(file, [found[question.part]])
    shown = _describe_content(Window(file, start, size), question.part, question)
    return {**shown, "part": question.part, "span": [start, size], **listing}


def _describe_content(file: PipedFile, name: str, question: Question) -> dict[str, Any]:
    head = file.range(0, 8)
    if head.startswith(_FRAME_HEADS):
        return frames.describe(file, question)
    if head.startswith(b"\x93NUMPY"):
        return arrays.describe(file, question)
    suffix = PurePosixPath(name.lower()).suffix
    if suffix == ".json" and file.size <= limits.JSON_BYTES:
        return trees.describe(file, question)
    shown = blobs.describe(file, question)
    if suffix in (".csv", ".tsv") and "text" in shown:
        shown["records"] = _records(file)
    return shown


def _records(file: PipedFile) -> dict[str, Any] | None:
    """Return the first rows of a CSV file as a table; None if they are none."""
    text = file.range(0, _CSV_BYTES).decode(errors="replace")
    lines = text.splitlines(keepends=True)
    if file.size > _CSV_BYTES:
        lines = lines[:-1]
    if not lines:
        return None
    delimiter = max(",;\t|", key=lines[0].count)
    try:
        rows = list(islice(csv.reader(lines, delimiter=delimiter), limits.PAGE_ROWS + 1))
    except csv.Error:
        return None
    names, *rows = (row[: limits.PAGE_COLUMNS] for row in rows)
    rows = [row + [""] * (len(names) - len(row)) for row in rows]
    return {
        "names": [cut(name) for name in names],
        "cells": [[cell(text) for text in row[: len(names)]] for row in rows],
        "numbers": [all(_is_number(row[at]) for row in rows) for at in range(len(names))],
    }


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True
