"""What a page says when a payload cannot be shown, and what to do then."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadMissingError,
    PayloadTooLargeError,
    ReferenceNotAllowedError,
    SettingsError,
    StoreUnavailableError,
    UnsupportedTypeError,
)
from ..settings import SECTION
from .inspector import NotShownError

__all__ = ["Trouble", "trouble"]


@dataclass(frozen=True)
class Trouble:
    """A title, what happened, what to do, and the HTTP status for a download."""

    title: str
    happened: str
    advice: str
    status: int


def trouble(error: Exception) -> Trouble:
    """Put an error into words."""
    for kind, (title, advice, status) in _WORDS.items():
        if isinstance(error, kind):
            return Trouble(title, str(error)[:1500], advice, status)
    if isinstance(error, PayloadError):
        return Trouble("The viewer does not know how to show this", str(error)[:1500], _UNKNOWN, 422)
    return Trouble("It took too long", str(error)[:1500], _LATE, 503)


_UNKNOWN = (
    "The payload itself may well be in order: tasks read it by another way, and with more memory. Download "
    "the object to look at it with a tool of your own. If tasks cannot read it either, clear the one that "
    "wrote it."
)
_LATE = "The store or this machine is slow at present. Try again, or download the object."
_WORDS: dict[type[PayloadError], tuple[str, str, int]] = {
    NotShownError: ("It cannot be shown here", _UNKNOWN, 422),
    PayloadMissingError: (
        "The payload is gone",
        "The row still points to it; a lifecycle rule, a purge or a person deleted the object. Clear the task "
        "to write it again, and keep the bucket's deletion age above the longest time between writing and "
        "reading.",
        404,
    ),
    PayloadCorruptError: (
        "The payload is not what was written",
        "The object was altered after the task wrote it, or is damaged. A task that pulls this XCom fails, "
        "too. Clear the task to write it again.",
        409,
    ),
    PayloadTooLargeError: (
        "Too large to look at here",
        "Nothing is wrong with the payload: tasks read it as ever. Download the object and open it with a tool "
        "of your own.",
        413,
    ),
    UnsupportedTypeError: (
        "A package is missing here",
        "Add it to requirements.txt of this deployment: the API server needs it to show this payload.",
        501,
    ),
    ReferenceNotAllowedError: (
        "This place may not be read",
        "Nothing was read. Find out who wrote the row, and clear the task. A place of another deployment can "
        f"be added to [{SECTION}] read_uris.",
        403,
    ),
    SettingsError: (
        "The payload store is not configured here",
        "The API server needs the same settings as the tasks.",
        503,
    ),
    StoreUnavailableError: (
        "The store cannot be reached from the API server",
        "Tasks on other machines may still reach it. The API server needs the same connection, network and "
        "permission to read objects as they have.",
        503,
    ),
}
