"""State of tasks and assets (Airflow 3.3 and later): its values, the names of its objects, and references.

Objects are below ``{prefix}/=state/``, which no Dag id is quoted to, in one folder per key::

    task/{dag_id}/{run_id}/{task_id}/{region}/{map_index}/{key}/{unique}.{extension}
    asset/{name, uri or id}/{text}/{key}/{unique}.{extension}

One listing finds all that was ever written for a key, a task instance, all its map indexes, or an asset.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

from .errors import ReferenceNotAllowedError, UnsupportedTypeError
from .reference import PayloadReference, segment, unquote_segment

__all__ = [
    "FOLDER",
    "StateKey",
    "StateReference",
    "as_json",
    "belongs_to_folder",
    "folder_of",
    "key_of_object",
    "looks_like_reference",
    "object_name",
]

CLASSNAME = "gcs_xcom.State"
"""Written into every reference. Names the format, not a class."""
VERSION = 1
FOLDER = "=state"

# The longest prefix, the fixed parts and four such segments fit into the 1,024 bytes of an object name.
# One length for all: the folder of a task must not depend on the key.
_MAX_SEGMENT_BYTES = 175
_DIGEST_CHARACTERS = 8
_PARTS_OF_SCOPE = {"task": 6, "asset": 3}


class StateKey(NamedTuple):
    """One key in the state of a task instance or an asset.

    Attributes:
        scope: ``("task", dag_id, run_id, task_id, region, map_index)``, or ``("asset", "name", name)``
            with ``"uri"`` or ``"id"`` in place of ``"name"``. ``region`` is ``"-"`` outside of loops.
        key: As the task names it.
    """

    scope: tuple[str, ...]
    key: str

    def __str__(self) -> str:
        """Return the words that error messages use."""
        if self.scope[0] == "asset":
            return f'state "{self.key}" of the asset with the {self.scope[1]} "{self.scope[2]}"'
        _, dag_id, run_id, task_id, region, map_index = self.scope
        where = f"run {run_id}, map_index {map_index}" + (f", region {region}" if region != "-" else "")
        return f'state "{self.key}" of {dag_id}.{task_id} ({where})'


class StateReference(NamedTuple):
    """What the database keeps in place of a large value."""

    state: StateKey
    payload: PayloadReference

    def to_text(self) -> str:
        """Return the JSON text. It is ASCII: every database keeps it as it is."""
        data = {"scope": self.state.scope, "key": self.state.key, "payload": self.payload.to_row()}
        return json.dumps({"__classname__": CLASSNAME, "__version__": VERSION, "__data__": data})

    @classmethod
    def from_value(cls, value: object) -> StateReference | None:
        """Return the reference that parsed JSON holds, or None for a value.

        Raises:
            ReferenceNotAllowedError: It claims to be a reference and is malformed, or of a version that
                this code does not know.
        """
        if not isinstance(value, dict) or not looks_like_reference(value):
            return None
        if (version := value.get("__version__")) != VERSION or type(version) is not int:
            raise ReferenceNotAllowedError(
                f"A state reference has version {version!r:.20}; this code reads version {VERSION}. Update "
                "this deployment's copy of include/xcom, or set the key again."
            )
        data = value.get("__data__")
        scope, key, row = map((data if type(data) is dict else {}).get, ("scope", "key", "payload"))
        parts = tuple(scope) if type(scope) is list else ()
        is_scope = all(type(text) is str for text in parts) and len(parts) == _PARTS_OF_SCOPE.get(
            "".join(parts[:1]), -1
        )
        payload = PayloadReference.from_row(row)
        if not is_scope or type(key) is not str or payload is None:
            raise ReferenceNotAllowedError(
                "A value of the state store looks like a reference and is malformed. It was not written by "
                "this backend, or was changed by hand; nothing was read. Delete the key, or set it again."
            )
        return cls(StateKey(parts, key), payload)


def as_json(value: Any) -> Any:
    """Return what Airflow's own store would return for a value: exact built-in types.

    Raises:
        UnsupportedTypeError: Airflow's own store refuses the value too.
    """
    from pydantic import JsonValue, TypeAdapter, ValidationError

    try:
        # What Airflow does with a value that goes to its database.
        return TypeAdapter(JsonValue).validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        # Names of types and keys take turns.
        path = "".join(f"[{part!r:.80}]" for part in found["loc"][1::2])
        raise UnsupportedTypeError(found["msg"], path=path[:400]) from error
    except UnicodeError as error:
        raise UnsupportedTypeError(str(error), path="") from error


def looks_like_reference(value: object) -> bool:
    """Tell whether a value would be taken for a reference, so that it cannot be in the row as it is."""
    return type(value) is dict and value.get("__classname__") == CLASSNAME


def folder_of(prefix: str, scope: tuple[str, ...], key: str | None = None) -> str:
    """Return the folder of a key, or of all keys of a scope, with a slash at its end.

    Args:
        prefix: ``[gcs_xcom] prefix``.
        scope: ``StateKey.scope``; without its last part, the folder of all map indexes.
        key: None for all keys.
    """
    folders = [segment(text, _MAX_SEGMENT_BYTES) for text in (*scope, *([] if key is None else [key]))]
    return "/".join([*([prefix] if prefix else []), FOLDER, *folders, ""])


def object_name(prefix: str, state: StateKey, extension: str) -> str:
    """Return a new name for an object."""
    return f"{folder_of(prefix, *state)}{uuid4().hex}{_digest(*state)}.{extension}"


def key_of_object(name: str, prefix: str) -> StateKey | None:
    """Return the key that an object was written for, or None for an object of another kind.

    None as well where a long id was shortened to a hash, and where a file system that does not tell
    capitals apart has put the file into a folder of another key.
    """
    folders = name.removeprefix(f"{prefix}/" if prefix else "").split("/")
    texts = tuple(map(unquote_segment, folders[1:-1]))
    if folders[0] != FOLDER or len(texts) - 1 != _PARTS_OF_SCOPE.get(texts[0] if texts else ""):
        return None
    state = StateKey(texts[:-1], texts[-1])
    is_its_own = name.startswith(folder_of(prefix, *state)) and belongs_to_folder(name, prefix)
    return state if is_its_own else None


def belongs_to_folder(name: str, prefix: str) -> bool:
    """Tell whether an object was written for the folder that a listing finds it in."""
    folder, _, file = name.removeprefix(f"{prefix}/" if prefix else "").rpartition("/")
    return file.partition(".")[0].endswith(_digest_of(f"{folder}/"))


def _digest(scope: tuple[str, ...], key: str) -> str:
    return _digest_of(folder_of("", scope, key))


def _digest_of(folder: str) -> str:
    # macOS finds the folder "A" under the name "a": without this, deleting one key would delete the other.
    return sha256(folder.encode()).hexdigest()[:_DIGEST_CHARACTERS]
