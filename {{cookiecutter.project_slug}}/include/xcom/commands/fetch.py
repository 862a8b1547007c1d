"""``fetch``: write a payload to a file, as it is stored; also how ``show`` gets at its bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..reference import Coordinates, PayloadReference
from ..stores import Stored, store_of
from ..units import format_size
from .api import MISSING, AirflowAPI
from .output import CommandError

__all__ = ["fetch_file", "find_payload", "run_fetch"]


def run_fetch(
    target: str | Coordinates,
    file: Path,
    connect: Callable[[], AirflowAPI],
    *,
    is_replacing: bool = False,
    is_json: bool = False,
) -> int:
    """Write a payload to a file, print what was written, and return the exit code."""
    if file.is_dir():
        raise CommandError(f"{file} is a directory; name a file in it")
    if file.exists() and not is_replacing:
        raise CommandError(f"{file} exists; replace it with --force")
    _, reference = find_payload(target, connect)
    if reference is None:
        raise CommandError(
            "this XCom is inline: its value is in the database row, and there is no payload to fetch"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    fetch_file(reference, file, is_replacing=is_replacing)
    facts = {"file": str(file), "uri": reference.uri, "bytes": reference.bytes, "crc32c": reference.crc32c}
    size = format_size(reference.bytes)
    print(json.dumps(facts, indent=2) if is_json else f"{file}: {size}, CRC32C {reference.crc32c}")
    return 0


def find_payload(
    target: str | Coordinates, connect: Callable[[], AirflowAPI]
) -> tuple[Any, PayloadReference | None]:
    """Return the row of an XCom, ``MISSING`` if unknown, and its reference, None for an inline value.

    A URI needs no API: size and checksum are then the store's, not what a task once wrote.

    Raises:
        CommandError: There is no such row, or Airflow did not answer.
        PayloadError: The store cannot be asked, or may not.
    """
    if isinstance(target, Coordinates):
        row = connect().value(target)
        if row is MISSING:
            hint = "" if target.map_index >= 0 else "; of a mapped task, name one with --map-index N"
            raise CommandError(f"Airflow has no {target}{hint}")
        return row, PayloadReference.from_row(row)
    stored = store_of(target).describe(target)
    extension = target.rpartition("/")[2].partition(".")[2]
    return MISSING, PayloadReference(
        stored.uri, "", stored.size, 0, extension, 0, stored.crc32c, stored.generation
    )


def fetch_file(reference: PayloadReference, target: Path, *, is_replacing: bool = False) -> None:
    """Stream one generation of an object to a file, which appears whole or not at all.

    Raises:
        CommandError: The file exists, and ``is_replacing`` is off.
        PayloadMissingError: The object is gone.
        PayloadCorruptError: What arrived has another size or CRC32C.
        StoreUnavailableError: It could not be read.
    """
    stored = Stored.of(reference)
    temporary = target.with_name(f".{uuid4().hex}.part")
    try:
        store_of(stored.uri).download(stored, temporary)
        if is_replacing:
            temporary.replace(target)
        else:
            # Unlike a rename, a link never replaces a file that appeared meanwhile.
            os.link(temporary, target)
    except FileExistsError as error:
        raise CommandError(f"{target} exists; replace it with --force") from error
    finally:
        temporary.unlink(missing_ok=True)
