"""What to return instead of a value that no backend can store, by class."""

from __future__ import annotations

from functools import cache

__all__ = ["advice_for"]

_LIST = "it can be read only once; return list(...) of it"
_VIEW = "return list(...) of it"
_CALL = "return what it returns when it is called"
_FILE = "an open file stays in this process; return File(path) from include.xcom, or its contents"
_PATH = "the file stays on this worker; return File(path) from include.xcom, or str(path)"
_DATABASE = "connections and cursors stay in this process; return the rows, such as cursor.fetchall()"
_MODEL = "save it and return File(path) from include.xcom"
_INDEX = "return .to_frame() or .tolist() of it"
_MASKED = "return .filled(...) of it, or a dict of its .data and .mask"
_GROUPS = "return the aggregated frame"
_TABLE = "Table(...) of it from include.xcom, which streams it"
_CONTEXT = "the context belongs to this task; return the parts of it that you need"
_ATTRIBUTE = "return a dict, such as vars() of it"
_SECRET = "a secret does not belong in an XCom; return the id of a connection that holds it"

# Of a class or one of its bases. Airflow's default backend refuses each of these too.
_ADVICE = {
    "builtins.generator": _LIST,
    "builtins.map": _LIST,
    "builtins.filter": _LIST,
    "builtins.zip": _LIST,
    "builtins.enumerate": _LIST,
    "builtins.reversed": _LIST,
    "builtins.list_iterator": _LIST,
    "builtins.dict_keys": _VIEW,
    "builtins.dict_values": _VIEW,
    "builtins.dict_items": _VIEW,
    "builtins.mappingproxy": "return dict(...) of it",
    "builtins.memoryview": "return bytes(...) of it",
    "builtins.function": _CALL,
    "builtins.method": _CALL,
    "builtins.builtin_function_or_method": _CALL,
    "functools.partial": _CALL,
    "builtins.coroutine": "return what awaiting it gives",
    "builtins.type": "return an instance or the name of the class",
    "builtins.module": "modules cannot be stored; import it in the task that needs it",
    "builtins.BaseException": "raise it, or return str(...) of it",
    "types.SimpleNamespace": _ATTRIBUTE,
    "argparse.Namespace": _ATTRIBUTE,
    "io.IOBase": _FILE,
    "_io._IOBase": _FILE,
    "tempfile._TemporaryFileWrapper": _FILE,
    "pathlib.PurePath": _PATH,
    "pathlib._local.PurePath": _PATH,  # Python 3.13
    "tempfile.TemporaryDirectory": _PATH,
    "sqlite3.Connection": _DATABASE,
    "sqlite3.Cursor": _DATABASE,
    "sqlite3.Row": "return tuple(...) or dict(...) of it",
    "psycopg2.extensions.connection": _DATABASE,
    "psycopg2.extensions.cursor": _DATABASE,
    "psycopg.Connection": _DATABASE,
    "psycopg.Cursor": _DATABASE,
    "sqlalchemy.engine.base.Engine": _DATABASE,
    "sqlalchemy.engine.base.Connection": _DATABASE,
    "sqlalchemy.engine.result.Result": _DATABASE,
    "sqlalchemy.orm.session.Session": _DATABASE,
    "sqlalchemy.engine.row.Row": "return tuple(...) of each row",
    "sqlalchemy.engine.row.RowMapping": "return dict(...) of each row",
    "requests.models.Response": "return response.json(), .text, or .content",
    "httpx.Response": "return response.json(), .text, or .content",
    "botocore.response.StreamingBody": "return .read() of it",
    "airflow.sdk.execution_time.lazy_sequence.LazyXComSequence": (
        "it loads the results of mapped tasks one by one; return list(...) or include.xcom.load_all(...) of it"
    ),
    "airflow.sdk.bases.operator.BaseOperator": "an operator is a task of its own; use its .output as an argument",
    "airflow.sdk.definitions.mappedoperator.MappedOperator": (
        "an operator is a task of its own; use its .output as an argument"
    ),
    "airflow.sdk.definitions.xcom_arg.XComArg": (
        "it stands for another task's result; pass it to the task as an argument and return that"
    ),
    "airflow.sdk.definitions.dag.DAG": _CONTEXT,
    "airflow.sdk.definitions.context.Context": _CONTEXT,
    "airflow.sdk.execution_time.task_runner.RuntimeTaskInstance": _CONTEXT,
    "airflow.sdk.bases.hook.BaseHook": "hooks hold connections; return the data that the hook fetched",
    "pandas.Index": _INDEX,
    "pandas.core.indexes.base.Index": _INDEX,
    "pandas.api.extensions.ExtensionArray": "return pandas.Series(...) or .tolist() of it",
    "pandas.core.arrays.base.ExtensionArray": "return pandas.Series(...) or .tolist() of it",
    "pandas.core.groupby.groupby.GroupBy": _GROUPS,
    "pandas.core.window.rolling.BaseWindow": _GROUPS,
    "polars.lazyframe.frame.LazyFrame": f"return .collect() of it, or {_TABLE}",
    "polars.dataframe.group_by.GroupBy": _GROUPS,
    "pyarrow.lib.RecordBatchReader": f"return .read_all() of it, or {_TABLE}",
    "pyarrow._dataset.Dataset": f"return .to_table() of it, or {_TABLE}",
    "pyspark.sql.dataframe.DataFrame": "return .toPandas(), or write a table and return its name",
    "dask.dataframe.core.DataFrame": "return .compute() of it",
    "numpy.ma.MaskedArray": _MASKED,
    "numpy.ma.core.MaskedArray": _MASKED,
    "numpy.matrix": "return numpy.asarray(...) of it",
    "numpy.ndarray": "return numpy.asarray(...) of it",
    "scipy.sparse._base._spbase": "return .toarray(), or a dict of its arrays",
    "matplotlib.figure.Figure": "save it with figure.savefig(buffer) into io.BytesIO() and return buffer.getvalue()",
    "PIL.Image.Image": "save it into io.BytesIO() and return buffer.getvalue()",
    "sklearn.base.BaseEstimator": f"dump it with joblib or skops, {_MODEL.removeprefix('save it ')}",
    "torch.Tensor": "return .detach().cpu().numpy() of it",
    "torch.nn.modules.module.Module": f"save its state_dict() with torch.save(), {_MODEL.removeprefix('save it ')}",
    "tensorflow.python.framework.tensor.Tensor": "return .numpy() of it",
    "xgboost.core.Booster": _MODEL,
    "lightgbm.basic.Booster": _MODEL,
    "pydantic.types.SecretStr": _SECRET,
    "pydantic.types.SecretBytes": _SECRET,
    "pydantic.types.Secret": _SECRET,
    f"{__package__.rpartition('.')[0]}.handles.xcoms.XComHandle": (
        "it stands for another task's XCom; return its .load(), .table(), or .file()"
    ),
}


@cache
def advice_for(kind: type) -> str | None:
    """Return a sentence for a class that cannot be stored, None for others."""
    for base in kind.__mro__:
        advice = _ADVICE.get(f"{base.__module__}.{base.__qualname__}")
        if advice is not None:
            return advice
    return None
