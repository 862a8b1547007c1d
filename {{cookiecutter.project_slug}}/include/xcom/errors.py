"""What can go wrong between a task and its payload.

::

    PayloadError
    ├── PayloadMissingError        the object that a row refers to is gone
    ├── PayloadExistsError         a create-only write found another object under its name
    ├── PayloadCorruptError        size, checksum or format is not what was written
    ├── PayloadTooLargeError       over [gcs_xcom] max_payload_bytes, encoded or decoded
    ├── UnsupportedTypeError       no codec brings this value back unchanged (also a TypeError)
    ├── ReferenceNotAllowedError   the row names an object outside this deployment, or is malformed
    ├── StoreUnavailableError      the store refused, or did not answer within timeout_seconds
    └── SettingsError              [gcs_xcom] holds a value that cannot work (also a ValueError)

Every message says what failed, where, and what to do next. The facts are attributes too
(``error.uri``, ``error.path``, ...), so that code never has to parse text, and they survive pickling.
"""

from __future__ import annotations

__all__ = [
    "PayloadCorruptError",
    "PayloadError",
    "PayloadExistsError",
    "PayloadMissingError",
    "PayloadTooLargeError",
    "ReferenceNotAllowedError",
    "SettingsError",
    "StoreUnavailableError",
    "UnsupportedTypeError",
]


class PayloadError(Exception):
    """Base of all errors of this package.

    Args:
        message: What a person reads; the only positional argument, as unpickling needs it.
        facts: Become attributes, for example ``uri``, ``generation``, ``path``, ``setting``.
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    def __getattr__(self, name: str) -> object:
        """Answer None for a fact that this error was raised without."""
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class PayloadMissingError(PayloadError):
    """The object is gone: a lifecycle rule, a purge, or a person deleted it."""


class PayloadExistsError(PayloadError):
    """Another payload already has this name; nothing was overwritten."""


class PayloadCorruptError(PayloadError):
    """The object's bytes are not those that were written."""


class PayloadTooLargeError(PayloadError):
    """The payload is over the limit of bytes; nothing was uploaded, or decoding stopped."""


class UnsupportedTypeError(PayloadError, TypeError):
    """No codec can bring the value back equal and of equal type; nothing was uploaded."""


class ReferenceNotAllowedError(PayloadError):
    """The row is not a reference that this deployment may follow; nothing was read or deleted."""


class StoreUnavailableError(PayloadError):
    """The store cannot be used now: no permission, no bucket, no space, or no answer in time."""


class SettingsError(PayloadError, ValueError):
    """One or more settings of ``[gcs_xcom]`` are missing or malformed; all are named at once."""
