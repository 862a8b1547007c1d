"""pandas frames as open files that come back with index, dtypes, names and attrs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UnsupportedTypeError
from ..base import Encoded
from .equality import arrays_equal, indexes_equal, same_object
from .formats import (
    SLICE_BYTES,
    FrameFormat,
    foreign_errors,
    memory_bytes,
    metadata,
    unsupported,
)
from .labels import decode_label, encode_label
from .pandas_arrays import Spec
from .pandas_indexes import (
    describe_array,
    describe_index,
    pack,
    restore_array,
    restore_index,
    unpack,
)
from .reading import FrameReader
from .writing import join, refusing, write_frame

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["PandasCodec"]


class PandasCodec:
    """Store ``DataFrame`` and ``Series`` as Parquet or Arrow IPC.

    Columns keep their names where these are distinct strings, so ``pandas.read_parquet`` and SQL
    engines read ordinary frames as they are; everything that a file format does not know (index
    kinds, frequencies, categories, labels that are not strings, attrs) is in the schema's metadata.
    Object columns of one Python type are stored natively, mixed ones as JSON text that names types.

    Dtypes of a fixed list are trusted. Other columns are read back and compared while encoding: what
    would change is refused. Encoding and decoding go by slices of rows and groups of columns, so
    neither holds a second copy of the frame.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. A frame that Parquet cannot hold is
            stored as Arrow. Decoding goes by the payload itself.
    """

    name: ClassVar[str] = "pandas-frame"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = (
        "pandas.DataFrame",  # pandas 3
        "pandas.Series",
        "pandas.core.frame.DataFrame",  # pandas 2
        "pandas.core.series.Series",
    )

    def __init__(self, frame_format: FrameFormat = "parquet") -> None:
        self._format: FrameFormat = frame_format

    def encode(self, value: Any) -> Encoded:
        """Encode a DataFrame or Series.

        Raises:
            UnsupportedTypeError: Something in it would come back changed; ``path`` says what
                (``"['price']"``, ``".index"``, ``".attrs"``).
        """
        plan = _Plan(value)
        try:
            parts = plan.write(self._format)
            extension = self._format
        except UnsupportedTypeError:
            if self._format == "arrow" or not plan.is_format_at_fault:
                raise
            parts = plan.write("arrow")
            extension = "arrow"
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=extension,
            type=plan.type,
            parts=parts,
            raw_bytes=plan.raw_bytes,
            summary=plan.summary,
        )

    def decode(self, payload: memoryview, type: str, version: int, max_bytes: int) -> Any:
        """Decode what ``encode`` wrote; see ``Codec.decode``."""
        reader = FrameReader(payload, max_bytes)
        with foreign_errors():
            return _restore_frame(reader)


class _Plan:
    """How one value is stored: looked at once, written in one format or the other."""

    def __init__(self, value: Any) -> None:
        import pandas as pd

        self.value = value
        is_frame = isinstance(value, pd.DataFrame)
        self.type = "pandas.DataFrame" if is_frame else "pandas.Series"
        if is_frame:
            labels = list(value.columns)
            arrays = [column.array for _, column in value.items()]
            paths = [f"[{label!r}]" for label in labels]
        else:
            labels, arrays, paths = [value.name], [value.array], [""]
        self.arrays, self.paths = arrays, paths
        self.columns = [describe_array(array, path) for array, path in zip(arrays, paths, strict=True)]
        self.index_facts, self.index_columns = describe_index(value.index, ".index")
        self.names = _field_names(labels, value.index)
        facts: Spec = {
            "type": self.type,
            "arrays": [column.spec for column in self.columns],
            "index": self.index_facts,
            "attrs": _encoded(value.attrs, ".attrs"),
            "flags": value.flags.allows_duplicate_labels,
        }
        if is_frame:
            facts["columns"] = _describe_labels(value.columns, self.names)
            self.summary: dict[str, int | str] = {"rows": len(value), "columns": len(labels)}
        else:
            facts["name"] = _encoded(value.name, ".name")
            self.summary = {"rows": len(value), "dtype": str(value.dtype)[:40]}
        self.schema = self._schema(facts)
        self.raw_bytes = 0
        self.is_format_at_fault = False

    def _schema(self, facts: Spec) -> pa.Schema:
        import pyarrow as pa

        columns = [*self.columns, *self.index_columns]
        fields = [pa.field(name, column.type) for name, column in zip(self.names, columns, strict=True)]
        return pa.schema(
            fields, metadata={**metadata(facts), **_pandas_metadata(self.value, facts, self.names)}
        )

    def write(self, frame_format: FrameFormat) -> list[Any]:
        """Write all rows, and read back what is not known to return."""

        self.raw_bytes = 0
        self.is_format_at_fault = True
        with refusing(self.schema, frame_format):
            try:
                parts = write_frame(self.schema, self._tables(), frame_format=frame_format)
            except UnsupportedTypeError:
                self.is_format_at_fault = False
                raise
            doubtful = [i for i, column in enumerate(self.columns) if not column.is_known]
            is_index_known = all(column.is_known for column in self.index_columns)
            if doubtful or not is_index_known or "freq" in self.index_facts:
                self._verify(FrameReader(join(parts), 2**62), doubtful)
        return parts

    def _tables(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        columns = [*self.columns, *self.index_columns]
        rows = len(self.value)
        copied = sum(column.copied_bytes for column in columns)
        step = rows if copied <= SLICE_BYTES else max(rows * SLICE_BYTES // copied, 1024)
        for start in range(0, max(rows, 1), max(step, 1)):
            stop = min(start + step, rows)
            table = pa.Table.from_arrays(
                [column.convert(start, stop) for column in columns], schema=self.schema
            )
            self.raw_bytes += memory_bytes(table)
            yield table

    def _verify(self, reader: FrameReader, doubtful: list[int]) -> None:
        for position in doubtful:
            array, path = self.arrays[position], self.paths[position]
            restored = restore_array(reader.read([position]).column(0), self.columns[position].spec)
            if not arrays_equal(array, _array(restored)):
                raise unsupported(path, f"values of dtype {array.dtype} would come back changed")
        if not indexes_equal(self.value.index, _read_index(reader, self.index_facts)):
            raise unsupported(".index", f"a {type(self.value.index).__name__} would come back changed")


def _encoded(value: Any, path: str) -> Any:
    try:
        facts = encode_label(value)
        if same_object(decode_label(facts), value):
            return facts
        reason = "a value that would come back changed"
    except TypeError as error:
        reason = str(error)
    raise unsupported(path, f"cannot store {reason}; use what JSON can hold")


def _field_names(labels: list[Any], index: Any) -> list[str]:
    """Name the file's columns: as they are called where that is a distinct string."""
    import pandas as pd

    taken: set[str] = set()
    names = []
    levels = [] if isinstance(index, pd.RangeIndex) else list(index.names)
    wanted = ["_".join(map(str, label)) if type(label) is tuple else str(label) for label in labels]
    for position, level in enumerate(levels):
        is_free = type(level) is str and level not in labels
        wanted.append(level if is_free else f"__index_level_{position}__")
    for name in wanted:
        name = name.encode("utf-8", "replace").decode("utf-8")
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        names.append(unique)
    return names


def _describe_labels(columns: Any, names: list[str]) -> Spec:
    """Describe the index of columns: by the fields' names if these say it all."""
    import pandas as pd

    is_flat = type(columns) is pd.Index and names[: len(columns)] == list(columns)
    if is_flat and set(map(type, columns)) <= {str}:
        column = describe_array(columns.array, ".columns")
        if column.spec["k"] in ("strings", "objects") and len(columns):
            return {"k": "fields", "names": [_encoded(columns.name, ".columns.name")], "values": column.spec}
    return pack(columns, ".columns")


def _restore_labels(facts: Spec, schema: pa.Schema, count: int) -> Any:
    if facts["k"] != "fields":
        return unpack(facts)
    import pyarrow as pa

    names = pa.chunked_array([pa.array(schema.names[:count], pa.large_string())])
    return restore_index({**facts, "k": "array"}, [names])


def _pandas_metadata(value: Any, facts: Spec, names: list[str]) -> dict[bytes, bytes]:
    """Describe an ordinary frame in the way of ``pandas.read_parquet``; others are plain to it."""
    import pandas as pd
    import pyarrow as pa

    specs = [*facts["arrays"], *(facts["index"].get("levels") or [facts["index"]])]
    kinds = {spec.get("values", spec)["k"] for spec in specs}
    labels = [*value.index.names, *getattr(value, "columns", value.index).names]
    if (
        facts.get("columns", {"k": "fields"})["k"] != "fields"
        or kinds & {"intervals", "complex", "json"}
        or not {type(label) for label in labels} <= {str, type(None)}
    ):
        return {}
    head = value.iloc[:0]
    head = head if isinstance(head, pd.DataFrame) else head.to_frame(name=names[0])
    try:
        json.dumps(head.attrs)
    except TypeError:
        head.attrs = {}
    try:
        described = json.loads(pa.Schema.from_pandas(head).metadata[b"pandas"])
        for column in described["columns"]:
            pd.api.types.pandas_dtype(column["numpy_type"])
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError):
        return {}  # pandas could write this frame, and not read it
    for column, spec in zip(described["columns"], facts["arrays"], strict=False):
        if spec["k"] == "objects":  # which no one can tell from a frame without rows
            column["pandas_type"] = {"str": "unicode"}.get(spec["of"], spec["of"])
    if facts["index"]["k"] == "range":
        start, stop, step = facts["index"]["range"]
        described["index_columns"] = [
            {"kind": "range", "name": value.index.name, "start": start, "stop": stop, "step": step}
        ]
    elif described["index_columns"] != names[len(facts["arrays"]) :]:
        return {}
    return {b"pandas": json.dumps(described).encode("ascii")}


def _restore_frame(reader: FrameReader) -> Any:
    import pandas as pd

    facts = reader.facts
    specs = facts["arrays"]
    arrays: list[Any] = [None] * len(specs)
    index_columns: dict[int, Any] = {}
    for group in reader.groups():
        table = reader.read(group)
        for position, column in zip(group, table.columns, strict=True):
            if position < len(specs):
                arrays[position] = restore_array(column, specs[position])
            else:
                index_columns[position] = column
        del table, column
    index = restore_index(facts["index"], [index_columns[i] for i in sorted(index_columns)])
    del index_columns
    if facts["type"] == "pandas.Series":
        value = _series(arrays[0], index)
        value.name = decode_label(facts["name"])
    else:
        # One block for each column; joining them would need the frame's memory once more.
        columns = {position: _series(array, index) for position, array in enumerate(arrays)}
        value = pd.DataFrame(columns, index=index, copy=False)
        value.columns = _restore_labels(facts["columns"], reader.schema, len(specs))
    value.attrs = decode_label(facts["attrs"])
    if not facts["flags"]:
        value.flags.allows_duplicate_labels = False
    return value


def _read_index(reader: FrameReader, facts: Spec) -> Any:
    first = len(reader.facts["arrays"])
    columns = reader.read(range(first, len(reader.schema))).columns
    return restore_index(facts, columns)


def _series(values: Any, index: Any) -> Any:
    import pandas as pd

    # The dtype is said, or pandas 3 makes str of objects.
    return pd.Series(values, index=index, dtype=values.dtype, copy=False)


def _array(values: Any) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=values.dtype, copy=False).array
