"""What to return instead of a value that no backend can store, by class."""

from __future__ import annotations

from functools import cache

__all__ = ["advice_for"]

_TABLE = "Table(...) of it from include.xcom, which streams it"
_FILE = "and return File(path) from include.xcom"
_HANDLES = f"{__package__.rpartition('.')[0]}.handles"

# Of classes and all that derive from them. Airflow's default backend refuses each of these too.
_ADVICE = {
    "it can be read only once; return list(...) of it": (
        "builtins.generator builtins.map builtins.filter builtins.zip builtins.enumerate builtins.reversed "
        "builtins.list_iterator"
    ),
    "return list(...) of it": "builtins.dict_keys builtins.dict_values builtins.dict_items collections.UserList",
    "return dict(...) of it": "builtins.mappingproxy collections.ChainMap collections.UserDict",
    "return bytes(...) of it": "builtins.memoryview",
    "return (start, stop, step)": "builtins.slice",
    "return datetime(*value[:6])": "time.struct_time",
    "return str(...) of it": (
        "collections.UserString numpy.dtype polars.datatypes.classes.DataType pyarrow.lib.DataType"
    ),
    "return what it returns when it is called": (
        "builtins.function builtins.method builtins.builtin_function_or_method functools.partial"
    ),
    "return what awaiting it gives": "builtins.coroutine",
    "return an instance or the name of the class": "builtins.type",
    "modules cannot be stored; import it in the task that needs it": "builtins.module",
    "raise it, or return str(...) of it": "builtins.BaseException",
    "return a dict, such as vars() of it": "types.SimpleNamespace argparse.Namespace",
    "an open file stays in this process; return File(path) from include.xcom, or its contents": (
        "io.IOBase _io._IOBase tempfile._TemporaryFileWrapper"
    ),
    # pathlib._local is that of Python 3.13.
    "the file stays on this worker; return File(path) from include.xcom, or str(path)": (
        "pathlib.PurePath pathlib._local.PurePath tempfile.TemporaryDirectory"
    ),
    "connections and cursors stay in this process; return the rows, such as cursor.fetchall()": (
        "sqlite3.Connection sqlite3.Cursor psycopg2.extensions.connection psycopg2.extensions.cursor "
        "psycopg.Connection psycopg.Cursor sqlalchemy.engine.base.Engine sqlalchemy.engine.base.Connection "
        "sqlalchemy.engine.result.Result sqlalchemy.orm.session.Session"
    ),
    "return tuple(...) or dict(...) of it": "sqlite3.Row",
    "return tuple(...) of each row": "sqlalchemy.engine.row.Row",
    "return dict(...) of each row": "sqlalchemy.engine.row.RowMapping",
    "return response.json(), .text, or .content": "requests.models.Response httpx.Response",
    "return .read() of it": "botocore.response.StreamingBody",
    "it loads the results of mapped tasks one by one; return list(...) or include.xcom.load_all(...) of it": (
        "airflow.sdk.execution_time.lazy_sequence.LazyXComSequence"
    ),
    "an operator is a task of its own; use its .output as an argument": (
        "airflow.sdk.bases.operator.BaseOperator airflow.sdk.definitions.mappedoperator.MappedOperator"
    ),
    "it stands for another task's result; pass it to the task as an argument and return that": (
        "airflow.sdk.definitions.xcom_arg.XComArg"
    ),
    "the context belongs to this task; return the parts of it that you need": (
        "airflow.sdk.definitions.dag.DAG airflow.sdk.definitions.context.Context "
        "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance"
    ),
    "hooks hold connections; return the data that the hook fetched": "airflow.sdk.bases.hook.BaseHook",
    "return .to_frame() or .tolist() of it": "pandas.Index pandas.core.indexes.base.Index",
    "return pandas.Series(...) or .tolist() of it": (
        "pandas.api.extensions.ExtensionArray pandas.core.arrays.base.ExtensionArray"
    ),
    "return the aggregated frame": (
        "pandas.core.groupby.groupby.GroupBy pandas.core.window.rolling.BaseWindow "
        "polars.dataframe.group_by.GroupBy"
    ),
    f"return .collect() of it, or {_TABLE}": "polars.lazyframe.frame.LazyFrame",
    f"return .read_all() of it, or {_TABLE}": "pyarrow.lib.RecordBatchReader",
    f"return .to_table() of it, or {_TABLE}": "pyarrow._dataset.Dataset",
    "return .toPandas(), or write a table and return its name": "pyspark.sql.dataframe.DataFrame",
    "return .compute() of it": "dask.dataframe.core.DataFrame",
    "return .filled(...) of it, or a dict of its .data and .mask": "numpy.ma.MaskedArray numpy.ma.core.MaskedArray",
    "return numpy.asarray(...) of it": "array.array numpy.matrix numpy.ndarray",
    "return .item() of it": "numpy.void",
    "return float(...) of it, or str(...) to keep every digit": "numpy.longdouble",
    "return .freqstr of it": "pandas._libs.tslibs.offsets.BaseOffset",
    "return .to_pylist() of it, or a pyarrow.table(...) with it as a column": (
        "pyarrow.lib.Array pyarrow.lib.ChunkedArray"
    ),
    "return .as_py() of it": "pyarrow.lib.Scalar",
    "return .to_pybytes() of it": "pyarrow.lib.Buffer",
    "return .serialize().to_pybytes() of it": "pyarrow.lib.Schema",
    "return .toarray(), or a dict of its arrays": "scipy.sparse._base._spbase",
    "save it with figure.savefig(buffer) into io.BytesIO() and return buffer.getvalue()": "matplotlib.figure.Figure",
    "save it into io.BytesIO() and return buffer.getvalue()": "PIL.Image.Image",
    f"dump it with joblib or skops, {_FILE}": "sklearn.base.BaseEstimator",
    "return .detach().cpu().numpy() of it": "torch.Tensor",
    f"save its state_dict() with torch.save(), {_FILE}": "torch.nn.modules.module.Module",
    "return .numpy() of it": "tensorflow.python.framework.tensor.Tensor",
    f"save it {_FILE}": "xgboost.core.Booster lightgbm.basic.Booster",
    "a secret does not belong in an XCom; return the id of a connection that holds it": (
        "pydantic.types.SecretStr pydantic.types.SecretBytes pydantic.types.Secret"
    ),
    "it stands for another task's XCom; return its .load(), .table(), or .file()": f"{_HANDLES}.xcoms.XComHandle",
}
_BY_CLASS = {name: advice for advice, names in _ADVICE.items() for name in names.split()}


@cache
def advice_for(kind: type) -> str | None:
    """Return a sentence for a class that cannot be stored, None for others."""
    for base in kind.__mro__:
        advice = _BY_CLASS.get(f"{base.__module__}.{base.__qualname__}")
        if advice is not None:
            return advice
    return None
