"""The indexes of pandas: as columns of a file, or packed into its metadata.

A row index becomes columns, so that other readers see it; the index of columns, categories and
levels are packed as a small Arrow stream. Categoricals are here because their categories are an index.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from .equality import indexes_equal
from .formats import unsupported
from .labels import decode_label, encode_label
from .pandas_arrays import Column, Spec, describe, restore

__all__ = ["describe_array", "describe_index", "pack", "restore_array", "restore_index", "unpack"]


def describe_array(values: Any, path: str) -> Column:
    """Decide how to store an array; like ``pandas_arrays.describe``, and categoricals too."""
    import pandas as pd

    if type(values.dtype) is not pd.CategoricalDtype:
        return describe(values, path)
    packed = pack(values.categories, f"{path}.cat.categories")
    column = _describe_codes(
        values.codes, values.categories, path, is_categorical=True, ordered=bool(values.ordered)
    )
    column.spec.update(k="categories", ordered=bool(values.ordered), categories=packed)
    return column


def restore_array(column: Any, spec: Spec) -> Any:
    """Rebuild an array; like ``pandas_arrays.restore``, and categoricals too."""
    if spec["k"] != "categories":
        return restore(column, spec)
    import pandas as pd

    categories = unpack(spec["categories"])
    dtype = pd.CategoricalDtype(categories, ordered=spec["ordered"])
    return pd.Categorical.from_codes(_codes(column, categories), dtype=dtype)


def describe_index(index: Any, path: str) -> tuple[Spec, list[Column]]:
    """Decide how to store an index: the facts that ``restore_index`` needs, and its columns.

    Raises:
        UnsupportedTypeError: It would not come back.
    """
    import pandas as pd

    names = [_label(name, f"{path}.name") for name in index.names]
    if type(index) is pd.RangeIndex:
        bounds = [index.start, index.stop, index.step]
        return {"k": "range", "names": names, "range": bounds}, []
    if type(index) is pd.MultiIndex:
        levels = []
        columns = []
        for position, (level, codes) in enumerate(zip(index.levels, index.codes, strict=True)):
            at = f"{path}.levels[{position}]"
            column = _describe_codes(codes, level, at)
            # Most levels are what pandas makes of the values: sorted, and all in use.
            is_derived = _is_derived(level, codes)
            if is_derived and _is_simple(column.spec):
                column = replace(column, is_known=True)
            levels.append({"values": column.spec, "level": None if is_derived else pack(level, at)})
            columns.append(column)
        return {"k": "multi", "names": names, "levels": levels}, columns
    column = describe_array(index.array, path)
    facts: Spec = {"k": "array", "names": names, "values": column.spec}
    freq = getattr(index, "freq", None)
    if freq is not None and type(index) is not pd.PeriodIndex:
        facts["freq"] = _freq(freq, path)
    return facts, [column]


def restore_index(facts: Spec, columns: list[Any]) -> Any:
    """Rebuild an index from its facts and the columns that were read (chunked arrays)."""
    import pandas as pd

    names = [decode_label(name) for name in facts["names"]]
    if facts["k"] == "range":
        return pd.RangeIndex(*facts["range"], name=names[0])
    if facts["k"] == "multi":
        levels, codes = [], []
        for level, column in zip(facts["levels"], columns, strict=True):
            found = _derive(column, level["values"]) if level["level"] is None else None
            if found is None:
                whole = unpack(level["level"])
                found = whole, _codes(column, whole)
            levels.append(found[0])
            codes.append(found[1])
        return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=False)
    index = _index(restore_array(columns[0], facts["values"]), names[0])
    if "freq" in facts:
        index.freq = facts["freq"]
    return index


def pack(index: Any, path: str) -> Spec:
    """Encode a whole index as JSON: its facts, and its columns as an Arrow stream in base64."""
    import pyarrow as pa

    facts, columns = describe_index(index, path)
    table = pa.table(
        [column.convert(0, len(index)) for column in columns], [str(i) for i in range(len(columns))]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed = {**facts, "ipc": base64.b64encode(sink.getvalue()).decode("ascii")}
    if not indexes_equal(index, unpack(packed)):
        raise unsupported(path, f"a {type(index).__name__} of dtype {index.dtype} would come back changed")
    return packed


def unpack(packed: Spec) -> Any:
    """Undo ``pack``."""
    import pyarrow as pa

    with pa.ipc.open_stream(base64.b64decode(packed["ipc"])) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return restore_index(packed, table.columns)


# ------------------------------------------------------------------------------------------- helpers


def _index(values: Any, name: Any) -> Any:
    import pandas as pd

    return pd.Index(values, dtype=values.dtype, name=name, copy=False, tupleize_cols=False)


def _label(name: Any, path: str) -> Any:
    try:
        return encode_label(name)
    except TypeError as error:
        raise unsupported(path, f"cannot store {error} as a name; use a str") from None


def _freq(freq: Any, path: str) -> str:
    from pandas.tseries.frequencies import to_offset

    name = str(freq.freqstr)
    try:
        is_named = to_offset(name) == freq
    except ValueError:
        is_named = False
    if not is_named:
        raise unsupported(f"{path}.freq", f"{freq!r} cannot be restored by its name; set index.freq = None")
    return name


def _is_derived(level: Any, codes: Any) -> bool:
    import numpy as np
    import pandas as pd

    return (type(level) is pd.Index or type(level) in (pd.DatetimeIndex, pd.TimedeltaIndex)) and bool(
        getattr(level, "freq", None) is None
        and level.is_unique
        and not level.hasnans
        and len(np.unique(codes[codes >= 0])) == len(level)
        and level.inferred_type not in ("mixed", "mixed-integer")
        and level.is_monotonic_increasing
    )


def _derive(column: Any, spec: Spec) -> tuple[Any, Any]:
    """Find the level and the codes as pandas does when it is given the values."""
    import numpy as np

    uniques, codes = _dictionary(column)
    level = _index(restore(uniques, spec), None)
    order = level.argsort()
    rank = np.empty(len(level) + 1, np.int64)
    rank[order] = np.arange(len(level))
    rank[-1] = -1  # of a missing value
    return level[order], rank[codes]


def _dictionary(column: Any) -> tuple[Any, Any]:
    """Return the distinct values (chunked) and, for each row, the position of its own, -1 for null."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return pa.chunked_array([], column.type.value_type), np.empty(0, np.int64)
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return pa.chunked_array([column.chunk(0).dictionary]), np.concatenate(codes)


def _describe_codes(
    codes: Any, categories: Any, path: str, *, is_categorical: bool = False, ordered: bool = False
) -> Column:
    """Store codes as the values that they stand for, so that any reader sees those.

    Text of categoricals as a dictionary, which other readers take for a categorical in turn.
    """
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    codes = np.asarray(codes)
    if type(categories) is pd.CategoricalIndex:  # a level of an index that was made of categoricals
        codes, categories = np.append(categories.codes, -1)[codes], categories.categories
    values = describe(categories.array, path)
    lies = values.convert(0, len(categories))
    if isinstance(lies, pa.ChunkedArray):
        lies = lies.combine_chunks() if lies.num_chunks != 1 else lies.chunk(0)
    is_text = is_categorical and (pa.types.is_large_string(lies.type) or pa.types.is_string(lies.type))
    if is_text:
        lies = lies.cast(pa.string())  # the one type of dictionary that Parquet brings back

    def convert(start: int, stop: int) -> Any:
        part = codes[start:stop].astype(np.int32)
        indices = pa.array(part, mask=part < 0)
        if is_text:
            return pa.DictionaryArray.from_arrays(indices, lies, ordered=ordered)
        return lies.take(indices)

    kind = pa.dictionary(pa.int32(), pa.string(), ordered=ordered) if is_text else lies.type
    is_known = is_text and _is_simple(values.spec)
    return Column(values.spec, kind, convert, is_known=is_known, copied_bytes=8 * len(codes))


def _is_simple(spec: Spec) -> bool:
    """Say whether values are told apart by Arrow just as by pandas: text, integers, times."""
    kind = spec["k"]
    if kind == "numpy":
        return bool(spec["dtype"][1] in "iuM" and "[s]" not in spec["dtype"])
    if kind == "datetimes":
        return bool(spec["unit"] != "s")
    return bool(kind == "strings" or (kind == "objects" and spec["of"] == "str"))


def _codes(column: Any, categories: Any) -> Any:
    """Find the position of each value among the categories."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if type(categories) is pd.CategoricalIndex:
        place = np.full(len(categories.categories) + 1, -1)
        place[categories.codes] = np.arange(len(categories))
        place[-1] = -1  # of a missing value
        return place[_codes(column, categories.categories)]
    if not len(column):
        return np.empty(0, np.int64)
    described = describe(categories.array, "")
    known = described.convert(0, len(categories))
    if isinstance(known, pa.ChunkedArray):
        known = known.combine_chunks()
    if pa.types.is_nested(known.type):
        positions = np.full(len(column), -1)
        there = column.is_valid().to_numpy()
        values = _index(restore(column.drop_null(), described.spec), None)
        positions[there] = categories.get_indexer(values)
        return positions
    values, rows = _dictionary(column) if pa.types.is_dictionary(column.type) else (column, None)
    found = pc.index_in(values.cast(known.type), value_set=known, skip_nulls=True).fill_null(-1)
    positions = np.append(found.to_numpy(), -1) if rows is not None else found.to_numpy()
    return positions if rows is None else positions[rows]
