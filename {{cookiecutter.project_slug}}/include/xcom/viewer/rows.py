"""The rows of XComs, read from the metadata database by Airflow's own model; never more than is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.xcom.errors import ReferenceNotAllowedError
from include.xcom.reference import PayloadReference
from include.xcom.viewer import limits

__all__ = ["Row", "of_instance", "of_run"]

# A reference is at most about 3 KB: its URI is of limited length.
_REFERENCE_CHARACTERS = 8192


@dataclass(frozen=True)
class Row:
    """One XCom.

    Attributes:
        text: The row's JSON text; None if it is longer than was asked for.
        characters: Of the row's JSON text.
        reference: What the row refers to; None for a value in the database.
        problem: Why the row is not a reference that can be followed, though it claims to be one.
    """

    task_id: str
    map_index: int
    key: str
    written: datetime | None
    characters: int
    text: str | None
    reference: PayloadReference | None
    problem: str | None

    @property
    def stored_bytes(self) -> int:
        """Bytes of the object, or of the text in the database."""
        return self.reference.bytes if self.reference else self.characters

    @property
    def raw_bytes(self) -> int:
        """Bytes of the value in memory, as far as it is known."""
        return self.reference.raw_bytes if self.reference else self.characters

    @property
    def type(self) -> str:
        """Type of the value, as people call it."""
        if self.reference:
            return self.reference.type
        if self.problem:
            return "?"
        if self.text is None:
            return "JSON"
        value = json.loads(self.text)
        if isinstance(value, dict) and isinstance(value.get("__classname__"), str):
            return str(value["__classname__"]).rpartition(".")[2]
        return "None" if value is None else type(value).__name__

    @property
    def extent(self) -> str:
        """Rows and columns, a shape, or a number of items."""
        summary = self.reference.summary if self.reference else {}
        if "rows" in summary:
            columns = f" × {_count(summary['columns'])}" if "columns" in summary else " rows"
            return f"{_count(summary['rows'])}{columns}"
        if "shape" in summary:
            return f"{summary['shape']} {summary.get('dtype', '')}".replace(" x ", " × ")
        for name in ("items", "characters", "parts"):
            if name in summary:
                return f"{_count(summary[name])} {name}"
        return ""


def of_instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Row]:
    """Return the XComs of a task instance, the return value first."""
    from airflow.models.xcom import XComModel

    rows = _select(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id == task_id,
        XComModel.map_index == map_index,
        characters=limits.INLINE_BYTES,
    )
    return sorted(rows, key=lambda row: (row.key != "return_value", row.key))


def of_run(dag_id: str, run_id: str) -> list[Row]:
    """Return the XComs of a Dag run, at most ``limits.RUN_ROWS`` of them."""
    from airflow.models.xcom import XComModel

    return _select(XComModel.dag_id == dag_id, XComModel.run_id == run_id, characters=_REFERENCE_CHARACTERS)


def _select(*where: Any, characters: int) -> list[Row]:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import Text, case, cast, func, null, select

    # As text: SQLite keeps JSON that looks like a number as one, and a long value stays in the database.
    text = cast(XComModel.value, Text)
    length = func.coalesce(func.length(text), 4)
    statement = (
        select(
            XComModel.task_id,
            XComModel.map_index,
            XComModel.key,
            XComModel.timestamp,
            length,
            case((length <= characters, text), else_=null()),
        )
        .where(*where)
        .order_by(XComModel.timestamp)
        .limit(limits.RUN_ROWS)
    )
    with create_session() as session:
        found = session.execute(statement).all()
    return [_row(*values) for values in found]


def _row(
    task_id: str, map_index: int, key: str, written: datetime | None, characters: int, text: str | None
) -> Row:
    if text is None and characters <= 4:
        text = "null"
    reference, problem = None, None
    if text is not None:
        try:
            reference = PayloadReference.from_row(json.loads(text))
        except ReferenceNotAllowedError as error:
            problem = str(error)
        except ValueError:
            problem = "The row does not hold JSON."
    return Row(task_id, map_index, key, written, int(characters), text, reference, problem)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
