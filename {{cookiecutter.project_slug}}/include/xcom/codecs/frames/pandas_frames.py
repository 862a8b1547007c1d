"""Store pandas frames as Parquet or Arrow IPC, column by column."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import PayloadCorruptError, UnsupportedTypeError
from ..base import Change, Encoded, type_name
from ..tagged_json import dump, load
from .formats import FrameFormat, foreign_errors, hash_schema

if TYPE_CHECKING:
    import pandas as pd

    from .pandas_columns import Column

__all__ = ["PandasCodec"]

_KEY = b"xcom"
"""Schema metadata that holds what pandas has and a file format lacks."""

_SLICE_BYTES = 32 * 2**20
"""What converting text may allocate at a time."""


class PandasCodec:
    """Store ``DataFrame`` and ``Series`` as Parquet or Arrow IPC.

    Columns keep their names where these are distinct strings, so ``pandas.read_parquet`` and SQL
    engines read ordinary frames as they are. What a file format lacks (index kinds, frequencies,
    categories, labels that are not strings, attrs) is in the schema's metadata. Object columns of one
    Python type are stored natively, mixed ones as JSON text that names types.

    A part of a DataFrame that has no exact form becomes what Airflow's default returns for it, and
    ``Encoded.changes`` says so. Airflow's default refuses every Series, so a Series is exact or refused.

    Args:
        frame_format: ``"parquet"``, or ``"arrow"`` for speed. A frame that Parquet cannot hold is
            stored as Arrow IPC. Decoding goes by the payload itself.
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

    def encode(self, value: pd.DataFrame | pd.Series) -> Encoded:
        """Encode a DataFrame or Series.

        Raises:
            UnsupportedTypeError: Something in it does not come back, and Airflow's default refuses
                it as well; ``path`` says what (``"['price']"``, ``".index"``, ``".attrs"``).
        """
        import pandas as pd

        from .arrow_files import write_columns
        from .pandas_columns import LazyText, put
        from .pandas_indexes import put_index, put_labels, put_name
        from .pandas_schema import file_schema

        is_frame = isinstance(value, pd.DataFrame)
        found: list[Change] = []
        changes = found if is_frame else None
        series = [column for _, column in value.items()] if is_frame else [value]
        paths = [f"[{label!r}]" for label in value.columns] if is_frame else [""]
        columns = [put(of.array, path, changes) for of, path in zip(series, paths, strict=True)]
        index, index_columns = put_index(value.index, ".index", changes)
        facts = {
            "columns": [column.spec for column in columns],
            "labels": put_labels(value.columns, changes) if is_frame else put_name(value.name, ".name"),
            "index": index,
            "attrs": _put_attrs(value.attrs, changes),
            "flags": value.flags.allows_duplicate_labels,
        }
        columns += index_columns
        text_bytes = sum(column.data.bytes for column in columns if isinstance(column.data, LazyText))
        schema = file_schema(value, columns, {_KEY: json.dumps(facts)})
        written = write_columns(
            schema,
            [column.data for column in columns],
            len(value),
            doubtful=[at for at, column in enumerate(columns) if column.is_doubtful],
            frame_format=self._format,
            step=max(len(value) * _SLICE_BYTES // text_bytes, 1024) if text_bytes > _SLICE_BYTES else 0,
        )
        summary: dict[str, int | str] = {"rows": len(value)}
        summary.update({"columns": len(series)} if is_frame else {"dtype": str(value.dtype)[:40]})
        return Encoded(
            codec=self.name,
            version=self.version,
            extension=written.format,
            type="pandas.DataFrame" if is_frame else "pandas.Series",
            parts=written.parts,
            raw_bytes=written.raw_bytes,
            summary={
                **summary,
                "schema": hash_schema(zip(schema.names, _types(value, columns), strict=True)),
            },
            changes=tuple(found),
        )

    def decode(
        self, payload: memoryview, type: str, version: int, max_bytes: int
    ) -> pd.DataFrame | pd.Series:
        """Decode what ``encode`` wrote; see ``Codec.decode``."""
        import pandas as pd

        from .arrow_files import read_table
        from .pandas_columns import get
        from .pandas_indexes import get_index, get_labels

        table = read_table(payload, max_bytes)
        text = (table.schema.metadata or {}).get(_KEY)
        if text is None:
            raise PayloadCorruptError("the payload lacks the metadata of a pandas frame")
        with foreign_errors():
            facts = json.loads(text)
            columns = table.columns[::-1]
            del table  # Each column is freed as soon as its array is made.
            arrays = [get(columns.pop(), spec) for spec in facts["columns"]]
            index = get_index(facts["index"], columns[::-1])
            # The dtype is named, or pandas 3 makes str of objects.
            series = [pd.Series(array, index=index, dtype=array.dtype, copy=False) for array in arrays]
            if type == "pandas.Series":
                value = series[0]
                value.name = load(facts["labels"])
            else:
                # One block for each column; joining them would need the frame's memory once more.
                value = pd.DataFrame(dict(enumerate(series)), index=index, copy=False)
                value.columns = get_labels(facts["labels"])
            value.attrs = load(facts["attrs"])
            if not facts["flags"]:
                value.flags.allows_duplicate_labels = False
            return value


def _types(value: pd.DataFrame | pd.Series, columns: list[Column]) -> list[str]:
    """Name the types of columns and index; of objects, the class that all of them have."""
    import pandas as pd

    dtypes = [value.dtype] if isinstance(value, pd.Series) else list(value.dtypes)
    index = value.index
    dtypes += list(index.dtypes) if isinstance(index, pd.MultiIndex) else [index.dtype]
    # A range has no column.
    return [
        f"{name} {column.spec.get('of', '')}" if name == "object" else name
        for name, column in zip(map(str, dtypes), columns, strict=False)
    ]


def _put_attrs(attrs: dict[Any, Any], changes: list[Change] | None) -> Any:
    """Return attrs as JSON, without what cannot be stored: Airflow's default drops them all then."""
    kept = {}
    for key, item in attrs.items():
        try:
            dump({key: item})
            kept[key] = item
        except UnsupportedTypeError as error:
            error.path = f".attrs{error.path}"
            if changes is None:
                raise
            changes.append(Change(f".attrs[{key!r}]", type_name(type(item)), "nothing"))
    return dump(kept)
