"""The first lines of a payload, from a file, with little memory; by the file's format, not by codecs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["preview"]

_HEAD_BYTES = 2000
_WIDTH = 100


def preview(path: Path, lines: int) -> list[str]:
    """Return at most about ``lines`` lines of at most 100 columns about a payload.

    Frames: schema and first rows. Arrays: shape, dtype and first items. JSON: its head. Bundles:
    their members. Bytes: the first ones in hexadecimal digits. A payload that cannot be read as what
    its name says gives one line that tells why.
    """
    readers = {
        ".parquet": _frame,
        ".arrow": _frame,
        ".npy": _array,
        ".zst": _json,
        ".zip": _bundle,
    }
    try:
        found = readers.get(path.suffix, _bytes)(path, lines)
    except Exception as error:  # Whatever a library says of foreign bytes: this is a look, not a load.
        found = [f"no preview: {type(error).__name__}: {error}"]
    return [_line(line) for line in found]


def _line(text: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _frame(path: Path, lines: int) -> list[str]:
    import pyarrow

    if path.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            batch: Any = next(file.iter_batches(lines), None)
    else:
        with pyarrow.memory_map(str(path)) as source:
            reader: Any = pyarrow.ipc.open_file(source)
            schema, count, batch = reader.schema, 0, None
            # One at a time: those of a compressed file are not where the file is mapped.
            for place in range(reader.num_record_batches):
                each = reader.get_batch(place)
                count += each.num_rows
                batch = each if batch is None else batch
    from .tables import table

    shown = [f"{count} rows, {len(schema)} columns"]
    shown += [f"  {field.name}: {field.type}" for field in list(schema)[:lines]]
    if len(schema) > lines:
        shown.append(f"  … {len(schema) - lines} more columns")
    if batch is not None and batch.num_rows:
        names = schema.names[:8]
        rows = batch.slice(0, lines).select(names).to_pylist()
        text = table(names, [[str(row[name])[:40] for name in names] for row in rows])
        shown += ["", *text.splitlines()]
        if len(schema) > len(names):
            shown.append(f"(first {len(names)} of {len(schema)} columns)")
    return shown


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
    return [*shown[:lines], *(["…"] if len(shown) > lines or not is_whole else [])]


def _bundle(path: Path, lines: int) -> list[str]:
    with zipfile.ZipFile(path) as bundle:
        members = bundle.infolist()
        shown = [f"{len(members)} members"]
        shown += [f"  {member.filename}  {member.file_size} bytes" for member in members[:lines]]
        if len(members) > lines:
            shown.append(f"  … {len(members) - lines} more")
    return shown


def _bytes(path: Path, lines: int) -> list[str]:
    with path.open("rb") as file:
        head = io.BytesIO(file.read(16 * lines))
    rows = iter(lambda: head.read(16), b"")
    return [
        f"{place * 16:08x}  {row.hex(' ').ljust(47)}  "
        + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        for place, row in enumerate(rows)
    ]
