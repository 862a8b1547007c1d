"""Say why a payload is not shown, and what to do next."""

from __future__ import annotations

from typing import NamedTuple

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
from .inspector import NotShownError, ViewTimeoutError
from .rows import Instance

__all__ = ["Message", "message_for", "no_xcom"]

_CHARACTERS = 1500


class Message(NamedTuple):
    """A title, what happened and what to do, and the HTTP status of a download."""

    title: str
    text: str
    advice: str
    status: int


# Titles and advice are those of the errors, except where the viewer's are other ones than a task's.
_STATUS: dict[type[PayloadError], int] = {
    PayloadMissingError: 404,
    PayloadCorruptError: 409,
    PayloadTooLargeError: 413,
    NotShownError: 422,
    UnsupportedTypeError: 501,
    ReferenceNotAllowedError: 403,
    SettingsError: 503,
    StoreUnavailableError: 503,
    ViewTimeoutError: 503,
}
_IN_THE_VIEWER: dict[type[PayloadError], tuple[str, str]] = {
    PayloadTooLargeError: (
        "Too large to show here",
        "Tasks can still load it. Download the object to open it with another tool",
    ),
    UnsupportedTypeError: (
        "A package is missing on the API server",
        "Add it to requirements.txt of this deployment: the API server needs it to show this payload",
    ),
    StoreUnavailableError: (
        "The API server cannot use the XCom store",
        (
            "Tasks on other machines may still reach it. The API server needs the same connection and network, and "
            "permission to read objects"
        ),
    ),
}


def message_for(error: PayloadError) -> Message:
    """Describe an error for people who look at a payload."""
    kind = type(error)
    title, advice = _IN_THE_VIEWER.get(kind, (error.title, error.advice))
    return Message(title, _sentence(str(error)[:_CHARACTERS]), _sentence(advice), _STATUS.get(kind, 500))


def no_xcom(instance: Instance | None) -> str:
    """Say why a task instance has no XComs, as far as its state tells."""
    if instance is None:
        return "This Dag run has no such task instance."
    state = instance.state
    if state in ("failed", "up_for_retry"):
        return (
            f"The task failed (try {instance.try_number}), so its return value was not stored. If the value itself could not "
            'be stored, the error is in the task\'s log, in the group "Post Execute".'
        )
    if state in ("upstream_failed", "skipped", "removed"):
        return f"The task did not run: its state is {state}."
    if state == "success":
        return "The task succeeded and has no XComs: it returned None, has do_xcom_push=False, or its XComs were deleted."
    if state in ("running", "deferred", "restarting", "up_for_reschedule"):
        return f"The task has not finished: its state is {state}. XComs appear here when it pushes or returns them."
    return f"The task has not run yet{f': its state is {state}' if state else ''}."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
