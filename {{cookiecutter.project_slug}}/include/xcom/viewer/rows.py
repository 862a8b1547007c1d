"""Read XCom rows from the metadata database through Airflow's own models, and no more than is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import ReferenceNotAllowedError
from ..reference import CLASSNAME, PayloadReference
from . import limits
from .ids import Ids

if TYPE_CHECKING:
    from airflow.models.xcom import XComModel
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import ColumnElement

    # What SQLAlchemy's functions return has no useful type.
    Where = Sequence[Any]
    Expression = ColumnElement[Any]

__all__ = [
    "Instance",
    "Listing",
    "Row",
    "instance_of",
    "model",
    "of_instance",
    "of_run",
    "open_session",
    "parse_row",
    "select_rows",
    "with_text",
]

# A reference is at most about 3 KB: the length of its URI is limited.
_REFERENCE_CHARACTERS = 8192
_SHAPE_CHARACTERS = 60


@dataclass(frozen=True)
class Row:
    """One XCom.

    Attributes:
        characters: Length of the row's JSON text.
        text: The JSON text; None if it is longer than was asked for.
        reference: What the row refers to; None for a value in the database.
        problem: Why a row that claims to be a reference cannot be followed.
    """

    run_id: str
    task_id: str
    map_index: int
    key: str
    timestamp: datetime | None
    characters: int
    text: str | None
    reference: PayloadReference | None = None
    problem: str = ""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the object, or of the text in the database."""
        return min(self.reference.bytes, limits.LARGEST_BYTES) if self.reference else self.characters

    @property
    def raw_bytes(self) -> int:
        """Bytes of the value in memory, as far as known."""
        return min(self.reference.raw_bytes, limits.LARGEST_BYTES) if self.reference else self.characters

    @property
    def summary(self) -> dict[str, int | float | str]:
        """The reference's summary; empty for a value in the database."""
        return self.reference.summary if self.reference else {}

    @cached_property
    def value(self) -> Any:
        """The value of a row in the database as JSON; None if it is unknown."""
        try:
            return json.loads(self.text or "null")
        except (ValueError, RecursionError):
            return None

    @property
    def type(self) -> str:
        """Type of the value, as people call it."""
        if self.reference:
            return self.reference.type
        if self.problem:
            return "?"
        if isinstance(self.value, dict) and isinstance(self.value.get("__classname__"), str):
            return str(self.value["__classname__"]).rpartition(".")[2]
        if self.value is None:
            return "None" if self.text == "null" else "JSON"
        return type(self.value).__name__

    @property
    def shape(self) -> str:
        """Rows and columns, the shape of an array, the name of a file, or a number of items."""
        summary = self.summary
        if "media_type" in summary:
            files = f", {_count(summary['files'])} files" if "files" in summary else ""
            return f"{_count(summary.get('name'))}{files or ', ' + _count(summary['media_type'])}"
        if "rows" in summary:
            columns = f" × {_count(summary['columns'])}" if "columns" in summary else " rows"
            return f"{_count(summary['rows'])}{columns}"
        if "shape" in summary:
            return f"{_count(summary['shape'])} {_count(summary.get('dtype', ''))}".replace(" x ", " × ")
        counted = [name for name in ("items", "characters", "parts", "files") if name in summary]
        return f"{_count(summary[counted[0]])} {counted[0]}" if counted else ""


@dataclass(frozen=True)
class Listing:
    """The XComs of a Dag run.

    Attributes:
        rows: The largest ones, at most ``limits.RUN_ROWS``.
        count: Number of all XComs; the other numbers are of all of them, too.
        payloads: Number of XComs in the store.
    """

    rows: list[Row]
    count: int
    stored_bytes: int
    raw_bytes: int
    payloads: int


@dataclass(frozen=True)
class Instance:
    """A task instance.

    Attributes:
        state: None before it is scheduled.
    """

    state: str | None
    try_number: int


def of_instance(ids: Ids) -> list[Row]:
    """Return the XComs of a task instance, the return value first; long values without their text."""
    rows = _newest(select_rows(_where(ids)))
    return sorted(rows, key=lambda row: (row.key != "return_value", row.key))


def with_text(row: Row, dag_id: str) -> Row:
    """Return the row with the text of its value, unless that is too long to show."""
    if row.text is not None or row.characters > limits.INLINE_BYTES:
        return row
    where = _where(Ids(dag_id, row.run_id, row.task_id, row.map_index), row.key)
    found = select_rows(where, characters=limits.INLINE_BYTES, at_most=1)
    return found[0] if found else row


def of_run(ids: Ids, contains: str = "") -> Listing:
    """Return the XComs of a Dag run, the largest ones if there are more than a page holds.

    Args:
        contains: Part of the task ids or XCom keys to list, in any case.
    """
    from sqlalchemy import func, or_, select

    where = [model().dag_id == ids.dag_id, model().run_id == ids.run_id]
    if contains:
        columns = (model().task_id, model().key)
        where.append(or_(*(func.lower(one).contains(contains.lower(), autoescape=True) for one in columns)))
    found = select_rows(where, is_largest_first=True)
    rows = _newest(found)
    if len(found) < limits.RUN_ROWS:
        stored, raw = (sum(getattr(row, name) for row in rows) for name in ("stored_bytes", "raw_bytes"))
        return Listing(rows, len(rows), stored, raw, sum(row.reference is not None for row in rows))
    with open_session() as session:
        is_reference, stored_sum, raw_sum = _sizes(session.get_bind().dialect.name)
        sums = (func.sum(one) for one in (stored_sum, raw_sum, is_reference))
        totals = session.execute(select(func.count(), *sums).select_from(model()).where(*where)).one()
    return Listing(rows, *(int(number or 0) for number in totals))


def instance_of(ids: Ids) -> Instance | None:
    """Return a task instance; None if there is none."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select

    where = [getattr(TaskInstance, name) == value for name, value in ids._asdict().items()]
    with open_session() as session:
        found = session.execute(select(TaskInstance.state, TaskInstance.try_number).where(*where)).first()
    return Instance(None if found[0] is None else str(found[0]), int(found[1])) if found else None


def open_session() -> AbstractContextManager[Session]:
    """Open a session of Airflow's metadata database."""
    from airflow.utils.session import create_session

    return create_session()


def model() -> type[XComModel]:
    """Return Airflow's model of an XCom, imported at the first request."""
    from airflow.models.xcom import XComModel

    return XComModel


def select_rows(
    where: Where,
    *,
    characters: int = _REFERENCE_CHARACTERS,
    at_most: int | None = None,
    is_largest_first: bool = False,
) -> list[Row]:
    """Return rows, the newest first unless the largest are asked for.

    Args:
        characters: Fetch the text of rows up to this length.
    """
    from sqlalchemy import case, null, select

    xcom = model()
    text, length = _text()
    with open_session() as session:
        order = [xcom.timestamp.desc()]
        if is_largest_first:
            order.insert(0, _sizes(session.get_bind().dialect.name)[1].desc())
        statement = (
            select(
                xcom.run_id,
                xcom.task_id,
                xcom.map_index,
                xcom.key,
                xcom.timestamp,
                length,
                case((length <= characters, text), else_=null()),
            )
            .where(*where)
            .order_by(*order)
            .limit(at_most or limits.RUN_ROWS)
        )
        return [parse_row(*values) for values in session.execute(statement)]


def _where(ids: Ids, key: str | None = None) -> Where:
    where = [getattr(model(), name) == value for name, value in ids._asdict().items()]
    return where if key is None else [*where, model().key == key]


def _newest(rows: list[Row]) -> list[Row]:
    """Keep one row for each key: Airflow 3.4 has one for each try and each iteration of a loop."""
    kept: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        xcom = (row.task_id, row.map_index, row.key)
        before = kept.get(xcom)
        if before is None or (row.timestamp and before.timestamp and row.timestamp > before.timestamp):
            kept[xcom] = row
    return list(kept.values())


def _text() -> tuple[Expression, Expression]:
    """Return the expressions for a row's text and its length."""
    from sqlalchemy import Text, cast, func

    # As text: SQLite turns JSON that looks like a number into one, and a long value stays in the database.
    text = cast(model().value, Text)
    return text, func.coalesce(func.length(text), 4)


def _sizes(dialect: str) -> tuple[Expression, Expression, Expression]:
    """Return the expressions for whether a row is a reference (1 or 0), its stored and its raw bytes.

    What a row claims may be no number, or one that no integer of the database can hold. In a database whose
    JSON functions are unknown here, references count by the length of their rows.
    """
    from sqlalchemy import Numeric, and_, case, cast, func, literal

    value = model().value
    text, length = _text()
    most = literal(limits.LARGEST_BYTES)

    def possible(claimed: Any) -> Any:
        return case((claimed >= 0, claimed), else_=length)

    if dialect == "postgresql":
        data = value["__data__"]
        is_reference = value["__classname__"].as_string() == CLASSNAME

        def number(name: str) -> Any:
            is_number = func.jsonb_typeof(data[name]) == "number"
            claimed = func.least(cast(data[name].as_string(), Numeric), most)
            return case((and_(is_reference, is_number), possible(claimed)), else_=length)

    elif dialect == "sqlite":
        is_valid = func.json_valid(text) == 1
        is_reference = case((is_valid, func.json_extract(text, "$.__classname__"))) == CLASSNAME

        def number(name: str) -> Any:
            path = f"$.__data__.{name}"
            is_number = func.json_type(text, path).in_(["integer", "real"])
            claimed = func.min(func.json_extract(text, path), most)
            return case((is_reference, case((is_number, possible(claimed)), else_=length)), else_=length)

    else:
        return literal(0), length, length
    return case((is_reference, 1), else_=0), number("bytes"), number("raw_bytes")


def parse_row(
    run_id: str,
    task_id: str,
    map_index: int,
    key: str,
    timestamp: datetime | None,
    characters: int,
    text: str | None,
) -> Row:
    """Return a row as it was selected: what is malformed in it becomes its ``problem``."""
    if text is None and characters <= 4:
        text = "null"
    reference, problem = None, ""
    if text is not None:
        try:
            reference = PayloadReference.from_row(json.loads(text))
        except ReferenceNotAllowedError as error:
            problem = str(error)
        except ValueError:
            problem = "The row does not hold JSON."
        except RecursionError:
            pass  # Nested too deep for a reference: a value, which its page may open.
    return Row(run_id, task_id, map_index, key, timestamp, int(characters), text, reference, problem)


def _count(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= _SHAPE_CHARACTERS else f"{text[:_SHAPE_CHARACTERS]}…"
