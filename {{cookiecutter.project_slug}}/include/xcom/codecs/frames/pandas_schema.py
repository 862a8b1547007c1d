"""The schema of a pandas frame's file: how other readers see the frame."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pyarrow as pa

from .pandas_columns import Column

__all__ = ["file_schema"]


def file_schema(
    value: pd.DataFrame | pd.Series, columns: list[Column], metadata: dict[bytes, str]
) -> pa.Schema:
    """Return the schema of a frame's columns, followed by those of its index.

    Args:
        value: The frame.
        columns: Its columns and those of its index, as they are stored.
        metadata: Of the schema; that of ``pandas.read_parquet`` is added if it can read the frame.
    """
    labels = list(value.columns) if isinstance(value, pd.DataFrame) else [value.name]
    levels = [] if isinstance(value.index, pd.RangeIndex) else value.index.names
    names = [_name(label) for label in labels]
    for position, level in enumerate(levels):
        names.append(level if type(level) is str and level not in labels else f"__index_level_{position}__")
    fields = [
        pa.field(name, column.data.type) for name, column in zip(_distinct(names), columns, strict=True)
    ]
    schema = pa.schema(fields, metadata=metadata)
    return schema.with_metadata({**schema.metadata, **_pandas_metadata(value, schema)})


def _name(label: Any) -> str:
    return "_".join(map(str, label)) if type(label) is tuple else str(label)


def _distinct(names: list[str]) -> list[str]:
    """Number names that are taken; a file has no two columns of one name."""
    taken: dict[str, None] = {}
    for name in names:
        unique = name = name.encode("utf-8", "replace").decode("utf-8")
        count = 1
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken[unique] = None
    return list(taken)


def _pandas_metadata(value: pd.DataFrame | pd.Series, schema: pa.Schema) -> dict[bytes, bytes]:
    """Describe an ordinary frame in the way of ``pandas.read_parquet``; others are plain to it."""
    head = value.iloc[:0]
    head = head if isinstance(head, pd.DataFrame) else head.to_frame(name=schema.names[0])
    is_nested = any(field.type.num_fields for field in list(schema)[head.shape[1] :])
    if is_nested or type(head.columns) is not pd.Index or list(head.columns) != schema.names[: head.shape[1]]:
        return {}
    try:
        json.dumps(head.attrs)
    except (TypeError, ValueError):
        head.attrs = {}
    try:
        described = json.loads(pa.Schema.from_pandas(head).metadata[b"pandas"])
        if isinstance(head.index, pd.RangeIndex):
            ends = {"start": value.index.start, "stop": value.index.stop, "step": value.index.step}
            described["index_columns"][0].update(ends)
        metadata = {b"pandas": json.dumps(described).encode("ascii")}
        back = schema.empty_table().replace_schema_metadata(metadata).to_pandas()
    except Exception:  # noqa: BLE001 - pandas could write this frame, and not read it.
        return {}
    return metadata if list(back.columns) == list(head.columns) else {}
