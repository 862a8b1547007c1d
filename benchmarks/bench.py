"""Measure this backend beside what one would take instead, on the same values, in the same run.

``make bench`` runs everything and writes ``docs/performance.md``, ``docs/performance.json`` and the
plots; ``make bench ARGS=--quick`` makes few rounds and only prints.

All candidates (see ``candidates``) speak to the same fake-gcs-server on the loopback interface. Each
has its own process, and they take turns: what slows the machine down for a while slows down all of
them. What counts is the ratio to the floor within the run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import end_to_end
import report
from candidates import BUCKET, CANDIDATES
from processes import ROOT, Nursery, Place, Proxy, Worker, find_server, serving

FAN_IN_OBJECTS = 256
DELAY_SECONDS = 0.02
# Seconds before each request, and bytes a second of each connection, up and down: as a standard bucket
# (gcsfs publishes such figures).
LINK = (0.045, 100e6, 200e6)
# Kind, size, rounds, candidates; the first two are those of `--quick`.
LINK_VALUES: list[tuple[str, float, int, list[str]]] = [
    ("records", 0.2, 7, ["ours", "floor", "object-storage"]),
    ("bytes", 64, 5, ["ours", "floor"]),
    ("bytes", 256, 3, ["ours", "floor"]),
    ("frame", 1, 3, ["ours", "floor", "object-storage"]),
]
STREAM_MIB = 1024
LARGE_MIB, LARGE_COLUMNS = 4096, 19
MEMORY = {"records": 32, "tree": 16, "frame": 1, "array": 64, "bytes": 64, "bundle": 64}


class Bench:
    """One run: what is asked for, and where it happens."""

    def __init__(
        self, place: Place, nursery: Nursery, binary: Path, *, is_quick: bool, slower: float
    ) -> None:
        self.place = place
        self.nursery = nursery
        self.binary = binary
        self.is_quick = is_quick
        self.link_rates = (LINK[0], LINK[1] / slower, LINK[2] / slower)
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Tell what goes on."""
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def workers(self, *names: str) -> Iterator[tuple[str, dict[str, Worker]]]:
        """Run a server and one worker for each candidate."""
        with ExitStack() as stack:
            url = stack.enter_context(serving(self.binary, self.place))
            yield url, {name: stack.enter_context(self.nursery.worker(name, url)) for name in names}

    # -------------------------------------------------------------------------------------- measures

    def fresh(self) -> dict[str, Any]:
        """A new process imports, stores and reads 200 kB of records."""
        results: dict[str, list[Any]] = {name: [] for name in _taking("records")}
        rounds = 3 if self.is_quick else 8
        for turn in range(rounds):
            self.say(f"fresh processes, round {turn + 1} of {rounds}")
            for name in _in_turn(results, turn):
                with self.workers(name) as (_, workers):
                    done = workers[name].ask("fresh", kind="records", size=0.2)
                if turn:  # The first one compiles modules.
                    results[name].append(_summed(done, "import", "store", "load"))
        return _medians(results)

    def warm(self) -> dict[str, Any]:
        """A process stores and reads 200 kB of records a hundred times."""
        results: dict[str, list[Any]] = {name: [] for name in _taking("records")}
        rounds, times = (2, 20) if self.is_quick else (4, 100)
        with self.workers(*results) as (url, workers):
            for worker in workers.values():
                worker.ask("make", kind="records", size=0.2)
            for turn in range(rounds):
                self.say(f"warm processes, round {turn + 1} of {rounds}")
                for name in _in_turn(results, turn):
                    results[name].append(workers[name].ask("warm", times=times))
                    _drain(url)
        return _medians(results)

    def _large(self, kind: str, size: float, *names: str) -> dict[str, Any]:
        results: dict[str, list[Any]] = {name: [] for name in names or _taking(kind)}
        rounds = 3 if self.is_quick else 10
        with self.workers(*results) as (url, workers):
            for worker in workers.values():
                worker.ask("make", kind=kind, size=size)
            _drain(url)
            for turn in range(rounds):
                self.say(f"{kind} of size {size:g}, round {turn + 1} of {rounds}")
                for name in _in_turn(results, turn):
                    done = workers[name].ask("once")
                    stored = _drain(url)
                    if turn:  # In the first one the system hands out memory that others just used.
                        results[name].append(_summed(done, "store", "load") | {"stored": stored})
        return _medians(results)

    def records(self) -> dict[str, Any]:
        """60,000 records, 8 MB of JSON."""
        return self._large("records", 8)

    def frame(self) -> dict[str, Any]:
        """A DataFrame of 1,000,000 rows and 10 columns, numbers, strings and dates."""
        return self._large("frame", 1)

    def array(self) -> dict[str, Any]:
        """64 MiB of random numbers in a NumPy array."""
        return self._large("array", 64)

    def bytes(self) -> dict[str, Any]:
        """64 MiB of bytes."""
        return self._large("bytes", 64)

    def fan_in(self) -> dict[str, Any]:
        """256 objects of 100 kB, 20 ms added to each request, 16 at a time."""
        results: dict[str, list[Any]] = {}
        rounds = 1 if self.is_quick else 3
        ways = [("floor", "get_all"), ("ours", "get_all"), ("ours", "lazy")]
        # Of the peers one way: each reads one value after the other, whoever asks.
        ways += [("object-storage", "get_all"), ("blog-post", "get_all")]
        with ExitStack() as stack:
            url = stack.enter_context(serving(self.binary, self.place))
            proxy = stack.enter_context(Proxy(url, self.place))
            workers = {}
            for name in _taking("records"):
                self.say(f"fan-in: store {FAN_IN_OBJECTS} objects with {CANDIDATES[name].label}")
                workers[name] = stack.enter_context(self.nursery.worker(name, proxy.url))
                workers[name].ask("store_many", kind="records", size=0.1, count=FAN_IN_OBJECTS)
            proxy.link(DELAY_SECONDS)
            for turn in range(rounds):
                self.say(f"fan-in, round {turn + 1} of {rounds}")
                for name, how in ways:
                    if turn and name not in ("floor", "ours"):
                        continue  # 13 s each, and the same each time
                    proxy.count()
                    done = workers[name].ask("fan_in", how=how)
                    facts = {"cpu": done["cpu"], "wall": done["wall"], "requests": proxy.count()}
                    results.setdefault(f"{name} {how}", []).append(facts)
            proxy.link()
        return _medians(results)

    def link(self) -> dict[str, Any]:
        """Over a link like one to a bucket: 45 ms a request; 100 MB/s up, 200 MB/s down a connection."""
        results: dict[str, Any] = {}
        for kind, size, rounds, names in LINK_VALUES[:2] if self.is_quick else LINK_VALUES:
            found: dict[str, list[Any]] = {name: [] for name in names}
            with (
                serving(self.binary, self.place) as url,
                Proxy(url, self.place) as proxy,
                ExitStack() as stack,
            ):
                workers = {name: stack.enter_context(self.nursery.worker(name, proxy.url)) for name in names}
                for worker in workers.values():
                    worker.ask("make", kind=kind, size=size)
                proxy.link(*self.link_rates)
                for turn in range(1 if self.is_quick else rounds + 1):
                    for name in _in_turn(found, turn):
                        self.say(f"link: {kind} of size {size:g}, {CANDIDATES[name].label}, round {turn + 1}")
                        proxy.count()
                        done = workers[name].ask("once")
                        times = {step: done[step]["wall"] for step in ("store", "load")}
                        if turn or self.is_quick:  # In the first round the server gets its memory.
                            found[name].append(times | {"uploaded": proxy.uploaded()})
                        _drain(url)
            results[f"{kind} {size:g}"] = _medians(found)
        if not self.is_quick:
            self.say(f"link: a stream of {STREAM_MIB} MiB")
            with (
                serving(self.binary, self.place) as url,
                Proxy(url, self.place) as proxy,
                self.nursery.worker("ours", proxy.url) as worker,
            ):
                proxy.link(*self.link_rates)
                done = worker.ask("stream", size=STREAM_MIB)
                facts = {step: done[step]["wall"] for step in ("store", "load")}
                facts |= {f"{step}_peak": done[step]["peak"] for step in ("store", "load")}
                results[f"stream {STREAM_MIB}"] = {"ours": facts | {"uploaded": proxy.uploaded()}}
        return results

    def requests(self) -> dict[str, Any]:
        """Requests for one value that is stored, and one that is read."""
        results: dict[str, list[Any]] = {}
        with serving(self.binary, self.place) as url, Proxy(url, self.place) as proxy:
            for name, candidate in CANDIDATES.items():
                for kind, size in (("records", 0.2), ("records", 8), ("frame", 0.1)):
                    if kind not in candidate.kinds:
                        continue
                    self.say(f"requests of {candidate.label} for {kind} of size {size:g}")
                    with self.nursery.worker(name, proxy.url) as worker:
                        worker.ask("make", kind=kind, size=size)
                        proxy.count()
                        row = worker.ask("store")["row"]
                        stored = proxy.count()
                        worker.ask("load", row=row)
                        results[f"{name} {kind} {size:g}"] = [{"store": stored, "load": proxy.count()}]
        return _medians(results)

    def memory(self) -> dict[str, Any]:
        """How far the process grows while it stores, and another while it reads."""
        results: dict[str, list[Any]] = {}
        for kind, size in MEMORY.items():
            for name in _taking(kind):
                if self.is_quick and name in ("object-storage", "blog-post"):
                    continue
                self.say(f"memory of {CANDIDATES[name].label} for {kind} of size {size}")
                with serving(self.binary, self.place) as url:
                    with self.nursery.worker(name, url) as writer:
                        writer.ask("make", kind=kind, size=size)
                        _drain(url)
                        stored = writer.ask("store_peak")
                        encoded = _bucket(url)
                    with self.nursery.worker(name, url) as reader:
                        loaded = reader.ask("load_peak", kind=kind, row=stored["row"])
                results[f"{name} {kind}"] = [
                    {
                        "store": stored["peak"],
                        "load": loaded["peak"],
                        "value": loaded["kept"],
                        "stored": sum(encoded.values()),
                    }
                ]
        return _medians(results)

    def large(self) -> dict[str, Any]:
        """Values larger than memory: growth of the process, requests, and bytes that are read."""
        scale = 64 if self.is_quick else 1
        results: dict[str, Any] = {}

        def step(name: str, title: str = "", **values: Any) -> Any:
            title = title or name
            self.say(f"values larger than memory: {title}")
            # In a process of its own, as in a task of its own.
            with self.nursery.worker("ours", proxy.url) as worker:
                proxy.count(), proxy.sent()
                done = worker.ask("large", step=name, **values)
            row = done.pop("result")
            results[title] = [done | {"requests": proxy.count(), "bytes": proxy.sent()}]
            return row

        with (
            serving(self.binary, self.place, is_in_memory=False) as url,
            Proxy(url, self.place) as proxy,
        ):
            row = step("store_file", mebibytes=LARGE_MIB // scale)
            step("load_file", row=row)
            _drain(url)
            row = step("store_table", rows=LARGE_MIB * 2**20 // (8 * LARGE_COLUMNS) // scale)
            step("load_table", row=row)
            _drain(url)
            row = step("store_table", "store 1M x 19", rows=1_000_000)
            step("load_columns", "load 19 columns", row=row, count=LARGE_COLUMNS)
            step("load_columns", "load 2 columns", row=row, count=2)
            row = step("store_items", megabytes=8)
            step("load_items", "load_items 1", row=row, tasks=1)
            step("load_items", "load_items 1000", row=row, tasks=1000)
        return _medians(results)

    def dags(self) -> dict[str, Any]:
        """The backend's share of the time that the example Dags take."""
        self.say("the example Dags, with `airflow dags test`")
        with serving(self.binary, self.place) as url:
            return end_to_end.measure(self.place, CANDIDATES["ours"].environment(url))


MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "fresh": Bench.fresh,
    "warm": Bench.warm,
    "records": Bench.records,
    "frame": Bench.frame,
    "array": Bench.array,
    "bytes": Bench.bytes,
    "fan-in": Bench.fan_in,
    "link": Bench.link,
    "memory": Bench.memory,
    "requests": Bench.requests,
    "large": Bench.large,
    "dags": Bench.dags,
}


def _taking(kind: str) -> list[str]:
    return [name for name, candidate in CANDIDATES.items() if kind in candidate.kinds]


def _in_turn(names: dict[str, Any], turn: int) -> list[str]:
    """Begin with another candidate each time."""
    order = list(names)
    first = turn % len(order)
    return order[first:] + order[:first]


def _summed(done: dict[str, Any], *steps: str) -> dict[str, Any]:
    facts = {name: sum(done[step][name] for step in steps) for name in ("cpu", "wall")}
    return facts | {f"{step}_cpu": done[step]["cpu"] for step in steps}


def _medians(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Reduce the rounds of each candidate to medians; keep the rounds of what varies."""
    reduced = {}
    for name, rounds in results.items():
        reduced[name] = {fact: statistics.median(found[fact] for found in rounds) for fact in rounds[0]}
        for fact in ("cpu", "wall"):
            if fact in rounds[0] and len(rounds) > 1:
                reduced[name][f"{fact}_rounds"] = [round(found[fact], 6) for found in rounds]
    return reduced


def _bucket(url: str) -> dict[str, int]:
    with urlopen(f"{url}/storage/v1/b/{BUCKET}/o?maxResults=5000", timeout=30) as answer:
        found = json.load(answer).get("items", [])
    return {item["name"]: int(item["size"]) for item in found}


def _drain(url: str) -> int:
    """Empty the bucket; return how many bytes it held."""
    sizes = _bucket(url)
    for name in sizes:
        path = f"{url}/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}"
        urlopen(Request(path, method="DELETE"), timeout=30).close()
    return sum(sizes.values())


def _machine() -> dict[str, Any]:
    packages = ["apache-airflow", "apache-airflow-providers-google", "apache-airflow-providers-common-io"]
    packages += ["gcsfs", "pandas", "pyarrow", "numpy", "orjson", "ormsgpack", "urllib3", "zstandard"]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, and write or print what was found."""
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="few rounds; prints, and writes nothing to docs/"
    )
    parser.add_argument("--only", action="append", choices=list(MEASURES), metavar="NAME",
                        help=f"measure this alone, and only print: {', '.join(MEASURES)}")  # fmt: skip
    parser.add_argument("--slower", type=float, default=1, metavar="FACTOR",
                        help="divide the rates of the link by this, for a machine that is busy")  # fmt: skip
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE",
                        help="measure nothing; write page and plots from this JSON")  # fmt: skip
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "bench", metavar="FOLDER",
                        help="where logs and figures lie; it is removed first")  # fmt: skip
    options = parser.parse_args(argv)
    if options.source:
        report.write(json.loads(options.source.read_text()), ROOT / "docs")
        return 0
    # Else a run that is told to end leaves its server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place = Place(options.folder.resolve())
    found: dict[str, Any] = {
        "machine": _machine(),
        "is_quick": options.quick,
        "slower": options.slower,
        "measures": {},
    }
    figures = place.folder / "performance.json"
    with Nursery(place) as nursery:
        bench = Bench(place, nursery, find_server(), is_quick=options.quick, slower=options.slower)
        for name in options.only or MEASURES:
            found["measures"][name] = MEASURES[name](bench)
            # After each, so that a run that is broken off has not been for nothing.
            figures.write_text(json.dumps(found, indent=1) + "\n")
    if not options.quick and not options.only and options.slower == 1:
        report.write(found, ROOT / "docs")
    print(report.tables(found))
    bench.say(f"done; all figures: {os.path.relpath(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
