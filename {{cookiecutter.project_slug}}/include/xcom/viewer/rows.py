"""The rows of XComs, read from the metadata database by Airflow's own model; never more than is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from ..errors import ReferenceNotAllowedError
from ..reference import CLASSNAME, PayloadReference
from . import limits

__all__ = ["Listing", "Row", "of_instance", "of_run", "with_text"]

# A reference is at most about 3 KB: its URI is of limited length.
_REFERENCE_CHARACTERS = 8192
_EXTENT_CHARACTERS = 60


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
        return _possible(self.reference.bytes) if self.reference else self.characters

    @property
    def raw_bytes(self) -> int:
        """Bytes of the value in memory, as far as it is known."""
        return _possible(self.reference.raw_bytes) if self.reference else self.characters

    @cached_property
    def type(self) -> str:
        """Type of the value, as people call it."""
        if self.reference:
            return self.reference.type
        if self.problem:
            return "?"
        if self.text is None:
            return "JSON"
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError):
            return "JSON"
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
            return f"{_count(summary['shape'])} {_count(summary.get('dtype', ''))}".replace(" x ", " × ")
        for name in ("items", "characters", "parts"):
            if name in summary:
                return f"{_count(summary[name])} {name}"
        return ""


@dataclass(frozen=True)
class Listing:
    """The XComs of a Dag run.

    Attributes:
        rows: The largest ones, at most ``limits.RUN_ROWS``.
        count: Of all XComs; so are the other numbers.
        payloads: That lie in the store.
    """

    rows: list[Row]
    count: int
    stored_bytes: int
    raw_bytes: int
    payloads: int


def of_instance(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[Row]:
    """Return the XComs of a task instance, the return value first; long values without their text."""
    rows = _newest(_rows(_where(dag_id, run_id, task_id, map_index)))
    return sorted(rows, key=lambda row: (row.key != "return_value", row.key))


def with_text(row: Row, dag_id: str, run_id: str) -> Row:
    """Return the row of a value with its text, unless that is too long to look at."""
    if row.text is not None or row.characters > limits.INLINE_BYTES:
        return row
    where = _where(dag_id, run_id, row.task_id, row.map_index, row.key)
    found = _rows(where, characters=limits.INLINE_BYTES, at_most=1)
    return found[0] if found else row


def of_run(dag_id: str, run_id: str) -> Listing:
    """Return the XComs of a Dag run, the largest ones if there are more than a page holds."""
    where = _where(dag_id, run_id)
    found = _rows(where, is_largest_first=True)
    rows = _newest(found)
    if len(found) < limits.RUN_ROWS:
        stored, raw = (sum(getattr(row, name) for row in rows) for name in ("stored_bytes", "raw_bytes"))
        return Listing(rows, len(rows), stored, raw, sum(row.reference is not None for row in rows))
    from sqlalchemy import func, select

    with _session() as session:
        is_reference, stored, raw = _sizes(session.get_bind().dialect.name)
        sums = (func.sum(one) for one in (stored, raw, is_reference))
        totals = session.execute(select(func.count(), *sums).select_from(_model()).where(*where)).one()
    return Listing(rows, *(int(number or 0) for number in totals))


def _session() -> Any:
    from airflow.utils.session import create_session

    return create_session()


def _model() -> Any:
    from airflow.models.xcom import XComModel

    return XComModel


def _where(
    dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1, key: str | None = None
) -> list[Any]:
    model = _model()
    where = [model.dag_id == dag_id, model.run_id == run_id]
    where += [] if task_id is None else [model.task_id == task_id, model.map_index == map_index]
    return where if key is None else [*where, model.key == key]


def _rows(
    where: list[Any],
    *,
    characters: int = _REFERENCE_CHARACTERS,
    at_most: int | None = None,
    is_largest_first: bool = False,
) -> list[Row]:
    from sqlalchemy import case, null, select

    model = _model()
    text, length = _text()
    with _session() as session:
        newest = model.timestamp.desc()
        order = [newest]
        if is_largest_first:
            order = [_sizes(session.get_bind().dialect.name)[1].desc(), newest]
        statement = (
            select(
                model.task_id,
                model.map_index,
                model.key,
                model.timestamp,
                length,
                case((length <= characters, text), else_=null()),
            )
            .where(*where)
            .order_by(*order)
            .limit(at_most or limits.RUN_ROWS)
        )
        found = session.execute(statement).all()
    return [_row(*values) for values in found]


def _newest(rows: list[Row]) -> list[Row]:
    """Keep one row for each key: Airflow 3.4 has one for each attempt and each turn of a loop."""
    kept: dict[tuple[str, int, str], Row] = {}
    for row in rows:
        place = (row.task_id, row.map_index, row.key)
        before = kept.get(place)
        if before is None or (row.written and before.written and row.written > before.written):
            kept[place] = row
    return list(kept.values())


def _text() -> tuple[Any, Any]:
    """Return the expressions for a row's text and its length."""
    from sqlalchemy import Text, cast, func

    # As text: SQLite keeps JSON that looks like a number as one, and a long value stays in the database.
    text = cast(_model().value, Text)
    return text, func.coalesce(func.length(text), 4)


def _sizes(dialect: str) -> tuple[Any, Any, Any]:
    """Return the expressions for whether a row is a reference (1 or 0), its stored and its raw bytes.

    What a row claims may be no number, or one that no integer of the database holds. For a database
    whose JSON functions are not known here, references count by the length of their rows.
    """
    from sqlalchemy import Numeric, and_, case, cast, func, literal

    value = _model().value
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
        classname = case((is_valid, func.json_extract(text, "$.__classname__")))
        is_reference = classname == CLASSNAME

        def number(name: str) -> Any:
            path = f"$.__data__.{name}"
            is_number = func.json_type(text, path).in_(["integer", "real"])
            claimed = func.min(func.json_extract(text, path), most)
            return case((is_reference, case((is_number, possible(claimed)), else_=length)), else_=length)

    else:
        return literal(0), length, length
    return case((is_reference, 1), else_=0), number("bytes"), number("raw_bytes")


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
        except RecursionError:
            pass  # Nested too deep for a reference: a value, which its page may open.
    return Row(task_id, map_index, key, written, int(characters), text, reference, problem)


def _possible(size: int) -> int:
    """Return what a row claims, at most the size that an object can have."""
    return min(size, limits.LARGEST_BYTES)


def _count(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= _EXTENT_CHARACTERS else f"{text[:_EXTENT_CHARACTERS]}…"
