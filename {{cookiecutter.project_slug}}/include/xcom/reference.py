"""The row that stands for a payload: what the database keeps, and what the UI shows.

A row is a JSON object in the shape of Airflow's own serialised objects. The UI renders that shape
as ``gcs_xcom.Payload@version=1(uri=gs://..., rows=336776, ...)``; the REST
API of Airflow 3.2 and later refuses it from users; and a task of a deployment whose backend is
switched off gets an error from Airflow, never the object itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from .errors import PayloadError, ReferenceNotAllowedError, shortened

__all__ = [
    "CLASSNAME",
    "Coordinates",
    "PayloadReference",
    "cause_and_remedy",
    "coordinates_of",
    "explained",
    "folder_of",
    "is_hashed",
    "is_in_folder",
    "object_name",
    "segment",
    "stem_of",
    "unquote_segment",
]

CLASSNAME = "gcs_xcom.Payload"
"""Written into every row. Names the format, not a class: rows outlive every refactoring."""
VERSION = 1

_FIELDS = {
    "uri": str,
    "type": str,
    "bytes": int,
    "raw_bytes": int,
    "codec": str,
    "codec_version": int,
    "crc32c": str,
    "generation": str,
}
_MAX_SEGMENT_BYTES = 200
_MAX_NAME_BYTES = 1024  # cloud.google.com/storage/docs/objects#naming
_HASH_CHARACTERS = 32


class PayloadReference(NamedTuple):
    """Where one payload lies and how to tell that it is still the one that was written.

    Attributes:
        uri: ``gs://bucket/name`` or ``file:///path``; the name is as the store has it, not quoted.
        type: Type of the value, ``"pandas.DataFrame"``.
        bytes: Bytes stored.
        raw_bytes: Bytes of the value in memory, or of its uncompressed text.
        codec: Name of the codec.
        codec_version: Version of its format.
        crc32c: Of the stored bytes, eight hexadecimal digits.
        generation: Of the object, in GCS's decimal digits; ``"0"`` in a directory.
        summary: A few words for people, such as ``{"rows": 336776, "columns": 19, "seconds": 1.204}``.
    """

    uri: str
    type: str
    bytes: int
    raw_bytes: int
    codec: str
    codec_version: int
    crc32c: str
    generation: str
    summary: dict[str, int | float | str] = {}  # noqa: RUF012 - a default, and never changed

    @property
    def facts(self) -> dict[str, int | str]:
        """What the summary says of the payload, without how long it took to store."""
        return {name: fact for name, fact in self.summary.items() if not isinstance(fact, float)}

    def to_row(self) -> dict[str, Any]:
        """Return the row's value: JSON that PostgreSQL keeps as it is."""
        data = {name: getattr(self, name) for name in _FIELDS}
        summary = {key: value for key, value in self.summary.items() if key not in _FIELDS}
        return {"__classname__": CLASSNAME, "__version__": VERSION, "__data__": {**data, **summary}}

    @classmethod
    def from_row(cls, row: object) -> PayloadReference | None:
        """Return the reference that a row holds, or None for a row that holds a value.

        Raises:
            ReferenceNotAllowedError: The row claims to be a reference and is malformed, or of a
                version that this code does not know.
        """
        if type(row) is not dict or row.get("__classname__") != CLASSNAME:
            return None
        version, data = row.get("__version__"), row.get("__data__")
        if type(version) is int and version > VERSION:
            raise ReferenceNotAllowedError(
                f"The XCom row is a payload reference of version {version}; this code reads up to version "
                f"{VERSION}. It was written by a newer include/xcom: update this deployment's copy.",
            )
        wrong = ["version"] if version != VERSION or type(version) is not int else []
        if type(data) is not dict or set(row) != {"__classname__", "__version__", "__data__"}:
            wrong.append("fields")
            data = {}
        wrong += [name for name, kind in _FIELDS.items() if type(data.get(name)) is not kind]
        if not wrong:
            wrong += [name for name in ("bytes", "raw_bytes") if data[name] < 0]
            wrong += [] if _is_hex(data["crc32c"]) else ["crc32c"]
            wrong += [] if data["generation"].isascii() and data["generation"].isdigit() else ["generation"]
        if wrong:
            raise ReferenceNotAllowedError(
                f"The XCom row looks like a payload reference and is malformed ({', '.join(wrong)}). It was "
                "written by something else than this backend, or changed by hand; nothing was read. Clear "
                "the task that wrote it.",
            )
        summary = {key: value for key, value in data.items() if key not in _FIELDS}
        return cls(**{name: data[name] for name in _FIELDS}, summary=summary)


class Coordinates(NamedTuple):
    """Which XCom a value belongs to, in Airflow's words.

    Attributes:
        map_index: ``-1`` for a task instance that is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    key: str

    def __str__(self) -> str:
        """Return the words that error messages use."""
        dag_id, run_id, task_id, key = (
            shortened(text, 100) for text in (self.dag_id, self.run_id, self.task_id, self.key)
        )
        return f'XCom "{key}" of {dag_id}.{task_id} (run {run_id}, map_index {self.map_index})'


def object_name(prefix: str, coordinates: Coordinates, unique: str, extension: str) -> str:
    """Return the name of an object, at most 1024 bytes of ASCII.

    ``{prefix}/{dag_id}/{run_id}/{task_id}/{map_index}/{key}/{unique}.{extension}``. Segments are
    percent-encoded, so two XComs never share a folder; one of over 200 bytes is cut and ends in a
    hash of the whole, which can be computed again from the same ids.
    """
    longest = _MAX_SEGMENT_BYTES
    while True:
        folder = folder_of(coordinates, longest)
        name = "/".join([*([prefix] if prefix else []), folder, f"{unique}.{extension}"])
        if len(name) <= _MAX_NAME_BYTES:
            return name
        # The prefix has at most 200 bytes, so this ends long before segments are all hash.
        longest -= 20


def folder_of(coordinates: Coordinates, longest: int = _MAX_SEGMENT_BYTES) -> str:
    """Return the folders that hold the payloads of an XCom: ``{dag_id}/{run_id}/{task_id}/{map_index}/{key}``."""
    return "/".join(segment(str(text), longest) for text in coordinates)


def segment(text: str, longest: int = _MAX_SEGMENT_BYTES) -> str:
    """Return one path segment for any text: reversible up to ``longest`` bytes, else cut and hashed.

    ``=`` marks a hash, or stands for empty text, and is quoted everywhere else: no two texts share a
    segment.
    """
    quoted = quote(text, safe="+:@,", errors="surrogatepass")
    # GCS refuses "." and ".." as object names and the emulator as parts of them.
    if quoted in ("", ".", ".."):
        quoted = quoted.replace(".", "%2E") or "="
    if len(quoted) <= longest:
        return quoted
    import hashlib

    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    head = quoted[: longest - _HASH_CHARACTERS - 1]
    # Never end within a percent escape.
    if "%" in head[-2:]:
        head = head[: head.rindex("%")]
    return f"{head}={digest}"


def coordinates_of(uri: str) -> Coordinates | None:
    """Read an XCom's coordinates back from its payload's URI; None when it has another form.

    Segments that were cut come back with their hash: good for messages, not for look-ups.
    """
    parts = uri.split("/")
    if len(parts) < 8:
        return None
    dag_id, run_id, task_id, map_index, key = map(unquote_segment, parts[-6:-1])
    if not map_index.lstrip("-").isdigit():
        return None
    return Coordinates(dag_id, run_id, task_id, int(map_index), key)


def cause_and_remedy(error: PayloadError) -> str:
    """Return an error's text with what to do about it first."""
    # About 100 characters of an error can be seen in Airflow's list of logs.
    return f"{error.title}. {error.advice}. Details: {error}" if error.advice else f"{error.title}: {error}"


def explained(error: PayloadError, uri: str, generation: str, size: int) -> PayloadError:
    """Return the error of a store or a codec with the object that it is about, cause and remedy first."""
    where = coordinates_of(uri)
    written = f", written as {where}" if where else ""
    found = error.reworded(
        f"{cause_and_remedy(error)}. {shortened(uri)} (generation {shortened(generation)}, {size} "
        f"bytes{written})."
    )
    found.uri, found.generation = uri, generation
    return found


def is_hashed(uri: str) -> bool:
    """Tell whether ids in an object's name were cut and hashed, so that only a row can name them."""
    return any("=" in part and part != "=" for part in uri.split("/")[-6:-1])


def is_in_folder(uri: str, coordinates: Coordinates) -> bool:
    """Tell whether an object is in the folder of an XCom, also where ids were cut and hashed."""
    folder = "/".join(uri.split("/")[-6:-1])
    # As object_name shortens them, at most until every name fits.
    return any(folder == folder_of(coordinates, longest) for longest in range(_MAX_SEGMENT_BYTES, 100, -20))


def stem_of(uri: str) -> str:
    """Return the part of a URI that a payload shares with its attachments: up to the first dot of the name."""
    folder, slash, name = uri.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def unquote_segment(segment: str) -> str:
    """Return the text of a path segment; of one that was cut, what is left and the hash."""
    if segment == "=":
        return ""
    try:
        return unquote(segment, errors="surrogatepass")
    except UnicodeDecodeError:  # Cut within a character.
        return unquote(segment, errors="replace")


def _is_hex(text: str) -> bool:
    return len(text) == 8 and all(character in "0123456789abcdef" for character in text)
