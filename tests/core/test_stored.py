"""What releases have written stays readable: rows and objects that are kept in the repository."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import example_values
import pytest
import stored_values
import zstandard
from include.xcom import File, Items, Table, codecs, payloads, reference, state
from include.xcom.codecs import equality, inline, scalars, tagged_reader
from include.xcom.codecs.classes import allow_lists
from include.xcom.stores import forget_stores

STORED = {path.stem: json.loads(path.read_text()) for path in sorted(stored_values.FOLDER.glob("*.json"))}
ENTRIES = [
    pytest.param(name, entry, id=f"{release}-{name}")
    for release, entries in STORED.items()
    for name, entry in entries.items()
]


@pytest.fixture
def bucket(payload_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the backend takes for the bucket of the rows."""
    stored_values.use_bucket(payload_folder, monkeypatch)
    yield payload_folder
    allow_lists.cache_clear()
    forget_stores()


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_stored_value_of_a_release_is_loaded(name: str, entry: dict[str, Any], bucket: Path) -> None:
    """Equal and of equal type, on every version of Airflow and of the libraries."""
    for object_name, body in entry["objects"].items():
        path = bucket / object_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(body))
    row = entry["row"]
    if name == "state":
        found = state.StateReference.from_value(json.loads(row))
        assert found is not None
        assert found.state == stored_values.STATE
        row = found.payload.to_row()

    value = stored_values.opened(payloads.load(row))

    expected = stored_values.VALUES[name]
    # A lock that a constructor makes is never the same.
    is_guarded = type(value) is type(expected) is example_values.Guarded
    assert equality.identical(expected, value) or (is_guarded and value == expected)


def test_every_codec_and_version_is_stored() -> None:
    """Who changes what a codec writes raises its version, and keeps an example of it."""
    found = {
        (row["__data__"]["codec"], row["__data__"]["codec_version"]) for row in rows(reference.CLASSNAME)
    }
    names = codecs.names()
    wanted = {(name, version) for name in names for version in range(1, codecs.find(name).version + 1)}
    kinds = (File, Items, Table)
    wanted |= {(kind.kind, version) for kind in kinds for version in range(1, kind.version + 1)}
    assert found == wanted

    types = {row["__data__"]["type"] for row in rows(reference.CLASSNAME)}
    of_codecs = {kind for name in names for kind in getattr(codecs.find(name), "types", ())}
    assert {kind.rpartition(".")[2] for kind in of_codecs} <= {kind.rpartition(".")[2] for kind in types}


def test_every_form_of_row_is_stored() -> None:
    """References, values in the row, state, and the row of 2023."""
    for format in (reference, inline):
        versions = {row["__version__"] for row in rows(format.CLASSNAME)}
        assert versions == set(range(1, format.VERSION + 1))
    states = [json.loads(entries["state"]["row"]) for entries in STORED.values() if "state" in entries]
    assert {state["__version__"] for state in states} == {state.VERSION}
    assert any("legacy-json" in entries for entries in STORED.values())


def test_every_tag_is_stored() -> None:
    """A tag that a reader knows is in some row or object."""
    texts = [json.dumps(row) for row in rows(inline.CLASSNAME)]
    for entries in STORED.values():
        texts += [text for entry in entries.values() for text in json_texts(entry["objects"])]
    found = {"$array"}  # In cells of frames alone.
    found |= set(re.findall(r'"(\$[\w.]+)": ?', " ".join(texts)))
    source = "".join(Path(module.__file__ or "").read_text() for module in (tagged_reader, scalars))
    known = set(re.findall(r'"(\$[\w.]+)": ', source)) | tagged_reader.HANDLE_TAGS

    assert known - found == set()


def rows(classname: str) -> list[dict[str, Any]]:
    """Return all rows of a form."""
    every = [entry["row"] for entries in STORED.values() for entry in entries.values()]
    return [row for row in every if isinstance(row, dict) and row["__classname__"] == classname]


def json_texts(objects: dict[str, str]) -> Iterator[str]:
    """Yield the JSON of the objects that are JSON."""
    for name, body in objects.items():
        data = base64.b64decode(body)
        if name.endswith(".json.zst"):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data).decode(errors="replace")
        elif name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from (archive.read(one).decode() for one in archive.namelist() if one.endswith(".json"))
