"""``show``: print the reference and the first lines of a payload.

The preview reads a file by its format, with little memory, and needs no codec. Of a ``File``, ``Table``, or
``Items`` it reads no more than it prints.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from ..codecs.base import HANDLE_KINDS
from ..reference import Coordinates, PayloadReference, coordinates_of
from ..stores import Stored
from ..units import format_count, format_size
from .api import MISSING, AirflowAPI
from .fetch import fetch_file, find_payload
from .output import format_table, printable

__all__ = ["run_show"]

_PREVIEW_BYTES = 256 * 1024**2
_HEAD_BYTES = 2000
_WIDTH = 100
_CELL_WIDTH = 40
_COLUMNS = 8


def run_show(
    target: str | Coordinates, connect: Callable[[], AirflowAPI], *, lines: int = 20, is_json: bool = False
) -> int:
    """Print the reference and a preview, for an inline value its JSON; return the exit code."""
    row, reference = find_payload(target, connect)
    if reference is None:
        if is_json:
            print(json.dumps({"inline": row}))
            return 0
        print("inline: the value is in the database row")
        text = json.dumps(row, ensure_ascii=False, indent=2)
        print("\n".join(line[:1000] for line in text.splitlines()[:lines]))
        return 0
    fields = {name: value for name, value in reference._asdict().items() if value not in ("", {})}
    if row is MISSING:
        # The store does not know the others.
        fields = {name: fields[name] for name in ("uri", "bytes", "crc32c", "generation")}
    shown = _preview_of(reference, lines)
    if is_json:
        print(json.dumps({"reference": fields, "preview": shown}, indent=2))
        return 0
    if where := coordinates_of(reference.uri):
        print(where)
    width = max(map(len, fields))
    for name, value in fields.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={text}" for inner, text in value.items())
        more = f" ({format_size(value)})" if name in ("bytes", "raw_bytes") else ""
        print(f"  {name.ljust(width)}  {value}{more}")
    print("", *shown, sep="\n")
    return 0


def _preview_of(reference: PayloadReference, lines: int) -> list[str]:
    if reference.codec in HANDLE_KINDS:
        return _preview_of_handle(reference, lines)
    if reference.bytes > _PREVIEW_BYTES:
        size = format_size(reference.bytes)
        return [f"no preview of {size}; download it with: python -m include.xcom fetch {reference.uri} FILE"]
    with tempfile.TemporaryDirectory() as folder:
        extension = reference.uri.rpartition("/")[2].partition(".")[2] or "bin"
        path = Path(folder) / f"payload.{extension}"
        fetch_file(reference, path)
        return preview(path, lines)


def _preview_of_handle(reference: PayloadReference, lines: int) -> list[str]:
    from ..handles.base import Content, handle_of

    content = Content(Stored.of(reference), reference.facts)
    return _look(lambda: _handle(handle_of(reference.codec, reference.codec_version, content), lines))


def _handle(handle: Any, lines: int) -> list[str]:
    from ..handles.items import Items
    from ..handles.tables import Table

    if isinstance(handle, Table):
        first = next(handle.batches(columns=handle.columns[:_COLUMNS]), None)
        return _rows(handle.schema, handle.num_rows, first, lines)
    if isinstance(handle, Items):
        return [repr(handle), *(f"  {item!r}" for item in islice(handle, lines))]
    if handle.is_folder:
        names = handle.files()
        more = [f"  ... {len(names) - lines} more"] if len(names) > lines else []
        return [format_count(len(names), "file"), *(f"  {name}" for name in names[:lines]), *more]
    with handle.open() as stream:
        return _head(stream.read(_HEAD_BYTES), lines)


def preview(path: Path, lines: int) -> list[str]:
    """Return about ``lines`` lines about a payload.

    Frames: schema and first rows. Arrays: shape, dtype, and first items. JSON: its beginning. Zip files:
    their members. Bytes: the first ones in hexadecimal. Other files: their first lines. If a payload is
    not what its name says, one line tells why.
    """
    readers = {
        ".arrow": _frame,
        ".bin": _bytes,
        ".npy": _array,
        ".parquet": _frame,
        ".zip": _zip,
        ".zst": _json,
    }
    return _look(lambda: readers.get(path.suffix, _file)(path, lines))


def _look(read: Callable[[], list[str]]) -> list[str]:
    """Return the lines as a terminal can show them, or the one that says why there are none."""
    try:
        shown = read()
    # Any error of any library about foreign bytes: this is a look, not a load.
    except Exception as error:  # noqa: BLE001
        shown = [f"no preview: {type(error).__name__}: {error}"]
    return [_cut(printable(line)) for line in shown]


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _frame(path: Path, lines: int) -> list[str]:
    return _rows(*(_parquet if path.suffix == ".parquet" else _arrow)(path, lines), lines)


def _rows(schema: Any, count: int, batch: Any, lines: int) -> list[str]:
    shown = [f"{format_count(count, 'row')}, {format_count(len(schema), 'column')}"]
    shown += [f"  {field.name}: {field.type}" for field in list(schema)[:lines]]
    if len(schema) > lines:
        shown.append(f"  ... {len(schema) - lines} more columns")
    if batch is not None and batch.num_rows:
        names = schema.names[:_COLUMNS]
        rows = batch.slice(0, lines).select(names).to_pylist()
        text = format_table(names, [[str(row[name])[:_CELL_WIDTH] for name in names] for row in rows])
        shown += ["", *text.splitlines()]
        if len(schema) > len(names):
            shown.append(f"(first {len(names)} of {len(schema)} columns)")
    return shown


def _parquet(path: Path, lines: int) -> tuple[Any, int, Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows, next(file.iter_batches(lines), None)


def _arrow(path: Path, lines: int) -> tuple[Any, int, Any]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        reader: Any = pyarrow.ipc.open_file(source)
        count, first = 0, None
        # One at a time: the batches of a compressed file are not in the mapped memory.
        for place in range(reader.num_record_batches):
            batch = reader.get_batch(place)
            count += batch.num_rows
            first = batch.slice(0, lines) if first is None else first
        return reader.schema, count, first


def _array(path: Path, lines: int) -> list[str]:
    import numpy

    array = numpy.load(path, mmap_mode="r", allow_pickle=False)
    items = array.reshape(-1)[:_HEAD_BYTES] if array.size else array
    text = numpy.array2string(numpy.asarray(items), threshold=lines, max_line_width=_WIDTH)
    shape = " x ".join(map(str, array.shape)) or "scalar"
    return [f"shape {shape}, dtype {array.dtype}", *text.splitlines()[:lines]]


def _json(path: Path, lines: int) -> list[str]:
    import zstandard

    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        head = stream.read(_HEAD_BYTES * max(lines // 10, 1))
        is_whole = not stream.read(1)
    text = head.decode("utf-8", "replace")
    if is_whole:
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    shown = text.splitlines() if is_whole else [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
    return [*shown[:lines], *(["..."] if len(shown) > lines or not is_whole else [])]


def _zip(path: Path, lines: int) -> list[str]:
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
    shown = [format_count(len(members), "member")]
    shown += [f"  {member.filename}  {format_size(member.file_size)}" for member in members[:lines]]
    return [*shown, *([f"  ... {len(members) - lines} more"] if len(members) > lines else [])]


def _bytes(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        return _hexadecimal(file.read(16 * lines))


def _file(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        return _head(file.read(_HEAD_BYTES), lines)


def _head(data: bytes, lines: int) -> list[str]:
    """Return the beginning of a file: lines of text, or bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if len(data) < _HEAD_BYTES or error.start < len(data) - 3:
            return _hexadecimal(data[: 16 * lines])
        text = data[: error.start].decode()  # A character is cut at the end.
    return text.splitlines()[:lines]


def _hexadecimal(data: bytes) -> list[str]:
    rows = [(at, data[at : at + 16]) for at in range(0, len(data), 16)]
    return [
        f"{at:08x}  {row.hex(' ').ljust(47)}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        for at, row in rows
    ]
