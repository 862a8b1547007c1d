"""Render the pages: templates that escape all values, and small charts.

The templates' delimiters are square brackets, so a cookiecutter template that carries these files leaves
them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ..units import format_number, format_size
from . import charts, limits
from .history import MEASURES, History, Point
from .ids import Ids, path_of
from .messages import Message
from .rows import Listing, Row

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Comparison", "Opened", "Page", "compare", "environment", "history", "instance", "message", "run"]

_MISSING = ("failed", "upstream_failed")


@dataclass(frozen=True)
class Page:
    """A page that lacks only the nonce of its answer."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)

    def render(self, nonce: str = "") -> str:
        """Return the HTML."""
        return environment().get_template(self.template).render(**self.values, nonce=nonce)


@dataclass(frozen=True)
class Opened:
    """The XCom that a page shows.

    Attributes:
        part: Member of a zip file that is shown.
        shown: Description of the payload; None if there is a message instead.
        checked: What was compared with the reference.
    """

    row: Row
    part: str = ""
    shown: dict[str, Any] | None = None
    checked: str = ""
    message: Message | None = None


@dataclass(frozen=True)
class Comparison:
    """Two payloads next to each other, and what differs."""

    sides: list[Opened]
    columns: list[dict[str, Any]]

    @classmethod
    def of(cls, first: Opened, second: Opened) -> Comparison:
        """Align the columns of two frames by name; other payloads have none."""
        frames = [side.shown for side in (first, second) if side.shown and side.shown["kind"] == "frame"]
        if len(frames) < 2:
            return cls([first, second], [])
        types = [dict(frame["schema"]) for frame in frames]
        facts = [{column["name"]: column for column in frame["columns"]} for frame in frames]
        names = list(dict.fromkeys(name for one in types for name in one))
        names.sort(key=lambda name: types[0].get(name) == types[1].get(name))  # What differs comes first.
        columns = [
            {
                "name": name,
                "types": [one.get(name) for one in types],
                "facts": [one.get(name) for one in facts],
            }
            for name in names
        ]
        return cls([first, second], columns)


# --------------------------------------------------------------------------------------------- the pages


def instance(
    *, root: str, ids: Ids, rows: list[Row], opened: Opened | None, empty: str, query: dict[str, Any],
    past: History | None,
) -> Page:  # fmt: skip
    """Return the page of a task instance.

    Args:
        empty: Why there are no XComs.
        query: ``sort`` and ``contains``, which links keep.
        past: The opened XCom over the last runs.
    """
    key = opened.row.key if opened else ""
    known = {"key": key, "part": opened.part if opened else "", **query}
    ordered, sort = _sorted(rows, query.get("sort") or "", default="")
    values = {
        "root": root, "ids": ids, "rows": [(row, "") for row in ordered], "opened": opened, "empty": empty,
        "known": known, "key": key, "part": known["part"], "link": _links(known), "sort": sort,
        "file": f"{root}/object/{path_of(*ids)}?" + urlencode({"key": key}),
        "image": f"{root}/image/{path_of(*ids)}" + _links(known)(sort="", contains=""),
        "past": past, "figures": _figures(past.points) if past else [],
        "history": _history_url(root, ids, key=key),
    }  # fmt: skip
    return Page("instance.html", values)


def run(*, root: str, ids: Ids, listing: Listing, sort: str, contains: str) -> Page:
    """Return the page of a Dag run."""
    ordered, sort = _sorted(listing.rows, sort, default="size")
    urls = [
        f"{root}/instance/{path_of(ids.dag_id, ids.run_id, row.task_id, row.map_index)}?"
        + urlencode({"key": row.key})
        for row in ordered
    ]
    known = {"sort": sort, "contains": contains}
    values = {
        "root": root, "ids": ids, "rows": list(zip(ordered, urls, strict=True)), "sort": sort,
        "known": known, "link": _links(known), "listing": listing, "is_cut": len(ordered) < listing.count,
        "largest": max((row.stored_bytes for row in ordered), default=0) or 1,
    }  # fmt: skip
    return Page("run.html", values)


def history(
    *, root: str, ids: Ids, key: str, runs: int, map_index: int | None, past: History, keys: list[str]
) -> Page:
    """Return the page of one XCom over the last runs."""
    known = {"key": key, "runs": runs, "map_index": "" if map_index is None else str(map_index)}
    index = -1 if map_index is None else map_index

    def payload(point: Point) -> str:
        if past.is_mapped and map_index is None:
            return f"{root}/run/{path_of(ids.dag_id, point.run_id)}?" + urlencode({"contains": ids.task_id})
        return f"{root}/instance/{path_of(ids.dag_id, point.run_id, ids.task_id, index)}?" + urlencode(
            {"key": key}
        )

    def comparison(first: str, second: str) -> str:
        query = urlencode({"key": key, "first": first, "second": second})
        return f"{root}/compare/{path_of(ids.dag_id, ids.task_id, index)}?{query}"

    lines: list[dict[str, Any]] = []
    before = ""
    for point in past.points:
        is_comparable = bool(before and point.xcoms) and not (past.is_mapped and map_index is None)
        url = comparison(before, point.run_id) if is_comparable else ""
        lines.insert(0, {"point": point, "payload": payload(point), "comparison": url})
        before = point.run_id if point.xcoms else before
    values = {
        "root": root, "ids": ids, "key": key, "runs": runs, "map_index": map_index, "past": past, "keys": keys,
        "lines": lines, "figures": _figures(past.points), "measures": _measured(past.points),
        "known": known, "link": _links(known), "action": f"{root}/compare/{path_of(ids.dag_id, ids.task_id, index)}",
        "stored": [line["point"].run_id for line in lines if line["point"].xcoms],
    }  # fmt: skip
    return Page("history.html", values)


def compare(*, root: str, ids: Ids, key: str, runs: list[str], column: int, comparison: Comparison) -> Page:
    """Return the page of one XCom in two runs."""
    known = {"key": key, "first": runs[0], "second": runs[1], "column": column}
    index = "" if ids.map_index < 0 else ids.map_index
    files = [f"{root}/image/{path_of(ids.dag_id, run_id, ids.task_id, ids.map_index)}?" + urlencode({"key": key})
             for run_id in runs]  # fmt: skip
    values = {
        "root": root, "ids": ids, "key": key, "runs": runs, "comparison": comparison, "column": column,
        "known": known, "link": _links(known), "images": files, "part": "",
        "history": _history_url(root, ids, key=key, map_index=index),
        "sides": list(zip(runs, files, comparison.sides, strict=True)),
    }  # fmt: skip
    return Page("compare.html", values)


def message(*, root: str, title: str, text: str) -> Page:
    """Return a page that only says something."""
    return Page("message.html", {"root": root, "title": title, "text": text})


# ------------------------------------------------------------------------------------------- their parts

_ORDERS: dict[str, Callable[[Row], Any]] = {
    "size": lambda row: (-row.stored_bytes, row.task_id, row.map_index),
    "memory": lambda row: (-row.raw_bytes, row.task_id, row.map_index),
    "task": lambda row: (row.task_id, row.map_index, row.key),
    "key": lambda row: (row.key, row.task_id, row.map_index),
    "type": lambda row: (row.type, row.task_id, row.map_index),
    "timestamp": lambda row: (str(row.timestamp), row.task_id, row.map_index),
}


def _sorted(rows: list[Row], sort: str, *, default: str) -> tuple[list[Row], str]:
    sort = sort if sort in _ORDERS else default
    return (sorted(rows, key=_ORDERS[sort]) if sort else rows), sort


def _links(known: dict[str, Any]) -> Callable[..., str]:
    """Return the function that makes a link to this page with some values of its query changed."""

    def link(**query: Any) -> str:
        merged = {**known, **query}
        return "?" + urlencode({name: value for name, value in merged.items() if value not in ("", 0, None)})

    return link


def _history_url(root: str, ids: Ids, **query: Any) -> str:
    given = {name: value for name, value in query.items() if value != ""}
    return f"{root}/history/{path_of(ids.dag_id, ids.task_id)}?" + urlencode(given)


def _measured(points: list[Point]) -> dict[str, str]:
    return {
        name: title for name, title in MEASURES.items() if any(name in point.measures for point in points)
    }


def _figures(points: list[Point]) -> list[dict[str, Any]]:
    """Draw each measure over the runs."""
    figures = []
    for name, title in _measured(points).items():
        values = [point.measures.get(name) for point in points]
        present = [value for value in values if value is not None]
        marks = ["" if point.xcoms else "failed" if point.state in _MISSING else "none" for point in points]
        titles = [
            f"{point.run_id}: {_measure(point.measures.get(name), name) or point.state or 'none'}"
            for point in points
        ]
        low, high, last = (_measure(value, name) for value in (min(present), max(present), present[-1]))
        label = f"{title} over {len(points)} runs: lowest {low}, highest {high}, last {last}"
        drawing = charts.history(values, marks, titles, label)
        figures.append({"title": title, "low": low, "high": high, "last": last, "drawing": drawing})
    return figures


def _measure(value: float | None, name: str) -> str:
    if value is None:
        return ""
    if name == "bytes":
        return format_size(int(value))
    if name == "seconds":
        return f"{value:.3g} s"
    return format_number(value)


@cache
def environment() -> Environment:
    """Return the templates, with the filters and charts that they use."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        size=format_size, count=lambda number: f"{number:,}", time=_time, share=_share, measure=_measure
    )
    made.globals.update(
        histogram=charts.histogram, line=charts.line, heat=charts.heat, bar=charts.bar, scale=charts.scale,
        limits=limits,
    )  # fmt: skip
    return made


def _time(moment: Any) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z").strip() if moment is not None else ""


def _share(part: int, whole: int) -> str:
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %".replace(".0 %", " %")
