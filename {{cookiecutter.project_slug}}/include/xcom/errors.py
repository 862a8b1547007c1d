"""Errors of the XCom backend.

::

    PayloadError
    ├── PayloadMissingError        the object that a row refers to is gone
    ├── PayloadExistsError         a create-only write found another object under its name
    ├── PayloadCorruptError        size, checksum, or format is not what was written
    ├── PayloadTooLargeError       over [gcs_xcom] max_payload_bytes or max_file_bytes
    ├── UnsupportedTypeError       no codec stores this value, or it cannot be read here (also a TypeError)
    ├── ReferenceNotAllowedError   the row is malformed, or names an object outside this deployment
    ├── SourceFileError            a file to be stored is gone, or changed while it was read (also an OSError)
    ├── TemporarySpaceError        no room, or no right, to write a temporary file
    ├── StoreUnavailableError      the store refused, or did not answer within timeout_seconds
    └── SettingsError              [gcs_xcom] has an invalid value (also a ValueError)

Every message says what failed, where, and what to do next. Facts are attributes, so code never
parses text, and they survive pickling. ``title`` and ``advice`` are class attributes: task logs, the
viewer, the commands, and the reference page all show the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from types import MappingProxyType
from typing import ClassVar, TypeVar

__all__ = [
    "PayloadCorruptError",
    "PayloadError",
    "PayloadExistsError",
    "PayloadMissingError",
    "PayloadTooLargeError",
    "ReferenceNotAllowedError",
    "SettingsError",
    "SourceFileError",
    "StoreUnavailableError",
    "TemporarySpaceError",
    "UnsupportedTypeError",
    "shortened",
]

_E = TypeVar("_E", bound="PayloadError")


def shortened(text: str, limit: int = 200) -> str:
    """Return a text for a message, its middle left out where it is longer than ``limit`` characters.

    Rows may be written by anyone, so no message repeats a field of one in full.
    """
    text = text.encode(errors="backslashreplace").decode()  # Lone surrogates stop whoever prints them.
    if len(text) <= limit:
        return text
    head = limit // 3
    return f"{text[:head]}…{text[head + 1 - limit :]}"


class PayloadError(Exception):
    """Base class of all errors of this package.

    Args:
        message: Text for people. The only positional argument, because unpickling passes just that.
        facts: Values of attributes that the class declares.

    Attributes:
        uri: Object that the error is about.
        generation: Generation of that object.
        index: Position of the failing row, set by ``payloads.load_many``.
    """

    title: ClassVar[str] = "XCom payload error"
    advice: ClassVar[str] = ""

    uri: str | None = None
    generation: str | None = None
    index: int | None = None

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        for name, fact in facts.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no fact {name!r}")
            setattr(self, name, fact)

    def reworded(self: _E, message: str) -> _E:
        """Return a copy with another message and the same facts."""
        error = copy(self)
        error.args = (message,)
        return error


class PayloadMissingError(PayloadError):
    """The object is gone: a lifecycle rule, a purge, or a person deleted it."""

    title = "XCom payload is gone"
    advice = (
        "Clear the task that wrote it to store it again. A lifecycle rule, a purge, or a person deleted the "
        "object; keep the bucket's deletion age above the longest time between writing and reading"
    )


class PayloadExistsError(PayloadError):
    """Another payload already has this name. Nothing was overwritten."""

    title = "XCom payload already exists"
    advice = "Names are unique for each try, so this is a replayed request or a bug. Clear the task"


class PayloadCorruptError(PayloadError):
    """The object's bytes are not the bytes that were written."""

    title = "XCom payload is not what was written"
    advice = (
        "Clear the task that wrote it to store it again. The object was altered after it was written, or "
        "another program wrote it"
    )


class PayloadTooLargeError(PayloadError):
    """The payload is over the limit. Nothing was uploaded, or decoding stopped.

    Attributes:
        size: Bytes of the payload.
        limit: Bytes allowed.
    """

    title = "XCom payload is too large"
    advice = (
        "Raise [gcs_xcom] max_payload_bytes here to its value where the payload was written, or return less "
        "from the task"
    )

    size: int | None = None
    limit: int | None = None


class UnsupportedTypeError(PayloadError, TypeError):
    """The value, or its payload, has a type that cannot be used here. Nothing was uploaded or made.

    Attributes:
        path: Place within the value in Python notation: ``"['price'][2]"``, ``".index"``, ``""`` for
            the value itself.
        type: Full name of the type at that place.
    """

    title = "XCom value cannot be made here"

    path: str = ""
    type: str | None = None


class ReferenceNotAllowedError(PayloadError):
    """The row is not a reference that this deployment may follow. Nothing was read or deleted."""

    title = "XCom reference is not allowed"
    advice = (
        "Find out who wrote the row, then clear that task. If the place belongs to another deployment of yours, "
        "add it to [gcs_xcom] read_uris"
    )


class SourceFileError(PayloadError, OSError):
    """A file or folder that a task returned cannot be stored. Nothing that could be read was left."""

    title = "File cannot be stored"
    advice = "Close the file, and let nothing write to it while the task returns it; then clear the task"


class TemporarySpaceError(PayloadError):
    """A temporary file cannot be written: the disk has no room for it, or the directory is not writable.

    Attributes:
        needed: Bytes of the file.
        free: Bytes free on the disk.
    """

    title = "No room for a temporary file"
    advice = (
        "Point [gcs_xcom] temporary_directory to a larger disk, or read the handle without downloading it"
    )

    needed: int | None = None
    free: int | None = None


class StoreUnavailableError(PayloadError):
    """The store cannot be used: no permission, no bucket, no space, or no answer in time.

    Attributes:
        status: HTTP status of the last answer.
        conn_id: Airflow connection whose credentials do not work.
        permission: Permission that the account lacks by the server's word, such as
            ``storage.objects.create``; None for any other cause.
    """

    title = "XCom store is unavailable"
    advice = (
        "Check that the store can be reached from here, with the connection and permissions that tasks have"
    )

    status: int | None = None
    conn_id: str | None = None
    permission: str | None = None


class SettingsError(PayloadError, ValueError):
    """One or more settings of ``[gcs_xcom]`` are missing or invalid. The message names all of them.

    Attributes:
        problems: What is wrong, by the name of the setting.
    """

    title = "XCom backend is not configured"
    advice = "Correct the settings; API server, scheduler, and workers need the same ones"

    problems: Mapping[str, str] = MappingProxyType({})
