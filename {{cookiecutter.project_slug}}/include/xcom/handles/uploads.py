"""The objects that are made while one XCom is stored."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard
from uuid import uuid4

from ..errors import PayloadCorruptError, PayloadError, PayloadTooLargeError
from ..reference import object_name
from ..settings import SECTION
from ..stores import own_store, pieces, store_of

if TYPE_CHECKING:
    from ..codecs.base import Change
    from ..reference import Coordinates
    from ..settings import Settings
    from ..stores import Buffer, Stored
    from .base import Content, Facts, Handle

__all__ = ["Upload", "Uploads", "is_handle"]

log = logging.getLogger(__name__)


def is_handle(value: object) -> TypeGuard[Handle]:
    """Tell whether a value is a handle, without an import: most tasks have none, and every task asks."""
    base = sys.modules.get(f"{__package__}.base")
    return base is not None and isinstance(value, base.Handle)


class Uploads:
    """The payload of one XCom, and the attachments that belong to it; ``Attachments`` of ``codecs.encode``.

    The payload is ``{folder}/{unique}.{extension}``, attachments are ``{folder}/{unique}.{n}.{extension}``:
    all of them live as long as the row that names ``unique``.

    Args:
        coordinates: The XCom.
        settings: ``prefix`` and ``max_file_bytes`` are used.

    Attributes:
        attachments: Number of attachments so far.
        changes: Parts of attachments that do not come back exactly.
        error: What ended an upload, if something did.
    """

    def __init__(self, coordinates: Coordinates, settings: Settings) -> None:
        self.settings = settings
        self.attachments = 0
        self.changes: list[Change] = []
        self.error: BaseException | None = None
        self.coordinates = coordinates
        self._unique = uuid4().hex
        self._made: list[Stored] = []
        self._nodes: dict[int, tuple[Handle, Facts]] = {}

    def put(self, parts: list[Buffer], extension: str) -> Stored:
        """Store the payload from memory."""
        return self.keep(own_store().put(self.name(extension), parts))

    def store(self, handle: Handle) -> Content:
        """Store a handle as the payload."""
        with self._noting_errors():
            return handle.upload(Upload(self))

    def attach(self, handle: Handle) -> Content:
        """Store a handle that is part of the value as an attachment."""
        self.attachments += 1
        return handle.upload(Upload(self, self.attachments))

    def node_of(self, value: object) -> dict[str, Facts] | None:
        """Return the node of a handle, whose content ``upload`` fills in; None for other values."""
        if not is_handle(value):
            return None
        # An encoder that takes back a part of its work asks twice. The handle is kept with its id.
        _, facts = self._nodes.setdefault(id(value), (value, {}))
        return {f"${value.kind}": facts}

    def upload(self) -> None:
        """Store the handles that ``node_of`` was asked for."""
        with self._noting_errors():
            for handle, facts in self._nodes.values():
                if not facts:
                    facts.update(self.attach(handle).to_node(handle.version))

    def discard(self) -> None:
        """Delete what was stored, since no row will name it. What cannot be deleted is left to the sweep."""
        while self._made:
            stored = self._made.pop()
            try:
                own_store().delete(stored.uri, stored.generation)
            except PayloadError as error:
                log.warning("%s remains without a reference until the sweep: %s", stored.uri, error)

    def name(self, extension: str, number: int = 0) -> str:
        """Return the name of the payload, or of an attachment."""
        unique = f"{self._unique}.{number}" if number else self._unique
        return object_name(self.settings.prefix, self.coordinates, unique, extension)

    def keep(self, stored: Stored) -> Stored:
        """Take note of an object that was made, for ``discard``."""
        self._made.append(stored)
        return stored

    @contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise


class Upload:
    """Where one handle goes."""

    def __init__(self, uploads: Uploads, number: int = 0) -> None:
        self.settings = uploads.settings
        self._uploads = uploads
        self._number = number

    def stream(
        self,
        chunks: Iterable[Buffer],
        extension: str,
        title: str,
        *,
        total: int | None = None,
        part_bytes: int | None = None,
    ) -> Stored:
        """Store bytes of any length.

        Args:
            chunks: The bytes. An error that they raise is raised as it is, and nothing is left.
            extension: Of the object's name.
            title: What is stored, for the log: ``"model.bin"``.
            total: Bytes in all, if known.
            part_bytes: See ``Store.put_stream``.

        Raises:
            PayloadTooLargeError: There are more than ``max_file_bytes``.
            StoreUnavailableError: The store did not take them.
        """
        if total is not None:
            self._check(total, title)
        from .progress import TransferLog

        name = self._uploads.name(extension, self._number)
        progress = TransferLog(f"Uploading {title}", total)
        limited = self._limited(chunks, title)
        stored = own_store().put_stream(name, limited, part_bytes=part_bytes, progress=progress)
        return self._uploads.keep(stored)

    def copy(self, source: Stored, extension: str, title: str) -> Stored:
        """Store the bytes of another object; within a bucket none of them comes through this process.

        Raises:
            PayloadMissingError: The source is gone.
            PayloadCorruptError: It is not what was written.
        """
        name = self._uploads.name(extension, self._number)
        store = own_store()
        if store_of(source.uri) is store:
            return self._uploads.keep(store.copy(source, name))
        stored = self.stream(pieces(store_of(source.uri), source), extension, title, total=source.size)
        if (stored.size, stored.crc32c) != (source.size, source.crc32c):
            raise PayloadCorruptError("is not what was written", uri=source.uri)
        return stored

    def attach(self, handle: Handle) -> Content:
        """Store a handle that is part of this one."""
        return self._uploads.attach(handle)

    def note(self, changes: Iterable[Change]) -> None:
        """Take note of parts of the value that do not come back exactly."""
        self._uploads.changes += changes

    def _limited(self, chunks: Iterable[Buffer], title: str) -> Iterator[Buffer]:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            self._check(size, title)
            yield chunk

    def _check(self, size: int, title: str) -> None:
        limit = self.settings.max_file_bytes
        if size > limit:
            from ..units import format_size

            raise PayloadTooLargeError(
                f"{title} has {format_size(size)} or more; the limit is {format_size(limit)} ([{SECTION}] "
                "max_file_bytes). Nothing was stored. Raise the setting, or return less.",
                size=size,
                limit=limit,
            )
