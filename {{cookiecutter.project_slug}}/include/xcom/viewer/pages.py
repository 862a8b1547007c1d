"""HTML of the viewer: templates whose values are all escaped, and small charts.

The delimiters of the templates are square brackets, so that a template of another kind that carries
these files along leaves them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from . import charts, limits
from .rows import Listing, Row
from .words import Trouble

if TYPE_CHECKING:
    from jinja2 import Environment

    from .app import Ids

__all__ = ["Page", "instance", "message", "run"]


@dataclass(frozen=True)
class Page:
    """A page that lacks only the nonce of its answer."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""

    def render(self) -> str:
        """Return the HTML."""
        return _environment().get_template(self.template).render(**self.values, nonce=self.nonce)


def instance(
    *,
    root: str,
    ids: Ids,
    rows: list[Row],
    opened: Row | None,
    part: str,
    shown: dict[str, Any] | None,
    checked: str,
    trouble: Trouble | None,
) -> Page:
    """Return the page of a task instance."""

    def link(**query: Any) -> str:
        known = {"key": opened.key if opened else "", "part": part}
        kept = {name: value for name, value in {**known, **query}.items() if value not in ("", 0, None)}
        return "?" + urlencode(kept)

    return Page(
        "instance.html",
        {
            "root": root,
            "ids": ids,
            "rows": rows,
            "opened": opened,
            "shown": shown,
            "checked": checked,
            "trouble": trouble,
            "link": link,
            "key": opened.key if opened else "",
            "part": part,
            "file": f"{root}/object/{ids.path}?" + urlencode({"key": opened.key if opened else ""}),
            "picture": f"{root}/image/{ids.path}" + link(),
            "run": f"{root}/run/{ids.dag_id}",
            "limits": limits,
        },
    )


_ORDERS = {
    "stored": ("Stored", lambda row: (-row.stored_bytes, row.task_id, row.map_index)),
    "memory": ("In memory", lambda row: (-row.raw_bytes, row.task_id, row.map_index)),
    "task": ("Task", lambda row: (row.task_id, row.map_index, row.key)),
    "key": ("Key", lambda row: (row.key, row.task_id, row.map_index)),
    "type": ("Type", lambda row: (row.type, row.task_id, row.map_index)),
    "written": ("Written", lambda row: (str(row.written), row.task_id, row.map_index)),
}
_DESCENDING = ("stored", "memory")
_HEADS = (
    ("task", "Task"),
    ("key", "Key"),
    ("stored", "Stored"),
    ("share", "Share"),
    ("type", "Type"),
    ("extent", "Extent"),
    ("memory", "In memory"),
    ("written", "Written"),
)


def run(*, root: str, ids: Ids, listing: Listing, sort: str) -> Page:
    """Return the page of a Dag run."""
    from .app import Ids

    sort = sort if sort in _ORDERS else "stored"
    ordered = sorted(listing.rows, key=_ORDERS[sort][1])
    places = [
        f"{root}/instance/{Ids(ids.dag_id, ids.run_id, row.task_id, row.map_index).path}?"
        + urlencode({"key": row.key})
        for row in ordered
    ]
    return Page(
        "run.html",
        {
            "root": root,
            "ids": ids,
            "rows": list(zip(ordered, places, strict=True)),
            "sort": sort,
            "direction": "descending" if sort in _DESCENDING else "ascending",
            "orders": [(name, title) for name, (title, _) in _ORDERS.items()],
            "heads": _HEADS,
            "listing": listing,
            "largest": max((row.stored_bytes for row in ordered), default=0),
            "is_cut": len(ordered) < listing.count,
        },
    )


def message(*, root: str, title: str, advice: str) -> Page:
    """Return a page that says something."""
    return Page("message.html", {"root": root, "title": title, "advice": advice})


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
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
    environment.filters.update(
        size=readable_size, count=lambda number: f"{number:,}", time=_time, share=_share
    )
    environment.globals.update(
        histogram=charts.histogram, line=charts.line, heat=charts.heat, bar=charts.bar, scale=charts.scale
    )
    return environment


def readable_size(size: int) -> str:
    """Write a number of bytes as people read it."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _time(moment: Any) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z").strip() if moment is not None else ""


def _share(part: int, whole: int) -> str:
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %".replace(".0 %", " %")
