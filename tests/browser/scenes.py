"""XComs that are worth a look, for tests and for the pictures of the documentation."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import pandas as pd
from include.xcom.reference import PayloadReference
from viewer_server import HOSTILE, ViewerServer

__all__ = ["DAG", "RUN", "fill"]

DAG, RUN = "example_flights", "manual__2026-11-01"
_ROWS = 40_000


def fill(server: ViewerServer) -> None:
    """Write a run of flights, and one of hostile texts."""
    server.add_dag(DAG)
    where: dict[str, Any] = {"dag_id": DAG, "run_id": RUN}
    flights = _flights()
    _add_history(server, flights)
    server.add(flights, "load", **where, seconds=0.214, schema="5f1c09ab")
    server.add({"rows": len(flights), "year": 2013}, "load", "facts", **where)
    for index, month in enumerate(range(1, 5)):
        server.add(flights[flights["month"] == month], "split", map_index=index, **where)
    server.add(_correlation(), "correlation", **where)
    server.add(_picture(), "plot", **where)
    records = [{"carrier": str(name), "flights": int(count)} for name, count in _counts(flights).items()]
    server.add(
        {"year": 2013, "airports": ["EWR", "JFK", "LGA"], "carriers": records * 300}, "report", **where
    )
    server.add(np.arange(4 * 30 * 40).reshape(4, 30, 40), "layers", **where)
    server.add_dag("hostile")
    for place, text in enumerate(HOSTILE):
        value = {"table": pd.DataFrame({text: [text] * 3}), text: [text, {"a": text}], "raw": text}
        server.add(value, "texts", f"{place} {text}", dag_id="hostile", run_id=RUN)
        server.add(
            pd.DataFrame({text: [text, text]}), "texts", f"frame {place}", dag_id="hostile", run_id=RUN
        )
        server.add(text.encode() * 9, "texts", f"bytes {place}", dag_id="hostile", run_id=RUN)
        server.add({"a": 1}, f"task {text}", dag_id="hostile", run_id=f"run {text}")
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("value.json", json.dumps({"$part": [text, "bytes", 1, text]}))
            archive.writestr(text, text)
        server.add_payload(
            sink.getvalue(),
            f"members {place}",
            codec="tagged-json",
            extension="zip",
            dag_id="hostile",
            run_id=RUN,
        )


def _add_history(server: ViewerServer, flights: pd.DataFrame) -> None:
    """Write four weeks of runs before the one that is shown; the last but one is stored, for comparing."""
    random = np.random.default_rng(11)
    for day in range(4, 32):
        run: dict[str, Any] = {
            "dag_id": DAG,
            "run_id": f"scheduled__2026-10-{day:02}",
            "run_after": f"2026-10-{day:02} 06:00:00",
        }
        rows = int(39_000 + 45 * day + random.normal(0, 400))
        if day in (13, 22):
            server.add_instance("load", "failed" if day == 22 else "skipped", **run)
        elif day == 31:
            before = flights.drop(columns="distance").assign(flight=flights["flight"].astype("float64"))
            server.add(before[:rows], "load", **run, seconds=0.208, schema="9e2d77c1")
        else:
            facts = {"rows": rows, "columns": 9, "seconds": round(0.2 + random.gamma(2, 0.01), 3)}
            made = PayloadReference(
                "gs://acme-xcom/o", "pandas.DataFrame", rows * 7, rows * 78, "pandas-frame", 1, "0" * 8, "1",
                {**facts, "schema": "9e2d77c1"},
            )  # fmt: skip
            server.add_row(made.to_row(), "load", **run)


def _counts(flights: pd.DataFrame) -> dict[str, int]:
    return dict(flights["carrier"].value_counts())


def _flights() -> pd.DataFrame:
    random = np.random.default_rng(2013)
    day = np.sort(random.integers(0, 365, _ROWS))
    moment = pd.Timestamp("2013-01-01") + pd.to_timedelta(day, "D")
    hour = np.clip(random.normal(13, 4.5, _ROWS), 5, 23).astype(int)
    delay = np.round(random.gamma(0.6, 22, _ROWS) - 6)
    delay[random.random(_ROWS) < 0.02] = np.nan
    carriers = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX"]
    weights = np.array([58, 54, 54, 48, 32, 26, 20, 18, 12, 5]) / 327
    return pd.DataFrame(
        {
            "month": moment.month,
            "day": moment.day,
            "hour": hour,
            "carrier": random.choice(carriers, _ROWS, p=weights),
            "flight": random.integers(1, 6000, _ROWS),
            "origin": random.choice(["EWR", "JFK", "LGA"], _ROWS, p=[0.36, 0.33, 0.31]),
            "dest": random.choice(["ATL", "ORD", "LAX", "BOS", "MCO", "SFO", "MIA"], _ROWS),
            "dep_delay": delay,
            "distance": random.choice([187, 502, 733, 762, 944, 1089, 2475, 2586], _ROWS),
            "time_hour": moment + pd.to_timedelta(hour, "h"),
        }
    )


def _correlation() -> np.ndarray:
    random = np.random.default_rng(3)
    common = random.normal(size=(3, 365))
    mixed = random.normal(size=(64, 3)) @ common + random.normal(size=(64, 365))
    return np.asarray(np.corrcoef(mixed[np.argsort(mixed[:, 0])]))


def _picture() -> bytes:
    """A PNG of 480 x 240 pixels: hills of several heights."""
    x, y = np.meshgrid(np.linspace(0, 6, 480), np.linspace(0, 3, 240))
    height = np.sin(x) * np.cos(2 * y) + 0.5 * np.sin(3 * x + y)
    level = ((height - height.min()) / np.ptp(height) * 7).astype(np.uint8)
    shades = np.array([(20 + 28 * n, 60 + 22 * n, 110 + 16 * n) for n in range(8)], np.uint8)
    lines = b"".join(b"\0" + shades[row].tobytes() for row in level)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 480, 240, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b"")
    )
