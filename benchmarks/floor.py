"""The floor: what storing and reading costs without any backend.

The shortest way from a value to an object and back that is known here: one HTTP request by
``urllib3`` each, and the fastest open format for the kind of value. It checks nothing: no types, no
checksum, no errors, no references, no settings.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import urllib3

_pool = urllib3.PoolManager(maxsize=16, retries=False)
_names = count()
_endpoint = os.environ["STORAGE_EMULATOR_HOST"]
_BUCKET = os.environ["BENCH_BUCKET"]
_process = os.getpid()


def store(value: Any) -> str:
    """Store a value; return the name of its object."""
    name = f"floor-{_process}-{next(_names)}"
    url = f"{_endpoint}/upload/storage/v1/b/{_BUCKET}/o?uploadType=media&name={name}"
    parts = _encoded(value)
    answer = _pool.request("POST", url, body=_pieces(parts), headers={"content-length": str(_size(parts))})
    assert answer.status == 200, answer.data
    return f"{_kind(value)}:{name}"


def load(row: str) -> Any:
    """Read a value."""
    kind, _, name = row.partition(":")
    url = f"{_endpoint}/download/storage/v1/b/{_BUCKET}/o/{name}?alt=media"
    answer = _pool.request("GET", url)
    assert answer.status == 200, answer.data
    return _decoded(kind, answer.data)


def load_many(rows: list[str]) -> list[Any]:
    """Read many values, 16 at a time."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(load, rows))


def _kind(value: Any) -> str:
    if isinstance(value, bytes):
        return "bytes"
    return {"DataFrame": "frame", "ndarray": "array"}.get(type(value).__name__, "records")


def _encoded(value: Any) -> list[Any]:
    kind = _kind(value)
    if kind == "bytes":
        return [value]
    if kind == "records":
        import orjson
        import zstandard

        return [zstandard.ZstdCompressor(level=1).compress(orjson.dumps(value))]
    if kind == "frame":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(value), sink, compression="zstd")
        return [memoryview(sink.getvalue())]
    import numpy as np

    head = io.BytesIO()
    np.lib.format.write_array_header_2_0(head, np.lib.format.header_data_from_array_1_0(value))
    return [head.getvalue(), memoryview(value).cast("B")]


def _size(parts: list[Any]) -> int:
    return sum(map(len, parts))


def _pieces(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else iter(parts)


def _decoded(kind: str, data: bytes) -> Any:
    if kind == "bytes":
        return data
    if kind == "records":
        import orjson
        import zstandard

        return orjson.loads(zstandard.ZstdDecompressor().decompress(data))
    if kind == "frame":
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(data)).to_pandas()
    import numpy as np

    head = io.BytesIO(data[:4096])
    np.lib.format.read_magic(head)
    shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape)
