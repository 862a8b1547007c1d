"""Processes that measure one candidate each, made as Airflow makes those of tasks.

Airflow's supervisor, which has imported Airflow itself, forks a process for each task. So does this:
for a line of JSON on standard input it forks a worker, which takes commands from a socket and
answers them, one JSON object a line::

    {"name": "ours", "socket": "/path", "environment": {...}}        standard input
    {"do": "fresh", "kind": "records", "size": 0.2}                  the socket
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from candidates import CANDIDATES, Opened
from values import make

# Pages that a measured step may need, of which the system gets hold before its clock starts; see ``ready``.
_FEW_MIB, _MANY_MIB = 64, 1024
_SMALL = {"records": 0.2, "tree": 0.2, "frame": 0.002, "array": 0.2, "bytes": 0.2, "bundle": 0.2}


class Worker:
    """Holds a value between commands."""

    def __init__(self, name: str) -> None:
        self.candidate = CANDIDATES[name]
        self.opened: Opened | None = None
        self.value: Any = None
        self.mebibytes = _FEW_MIB
        self.rows: list[Any] = []

    @property
    def way(self) -> Opened:
        """Open the backend when it is first used."""
        if self.opened is None:
            self.opened = self.candidate.open()
        return self.opened

    def make(self, kind: str, size: float) -> dict[str, Any]:
        """Make a value, and store and read a small one of its kind, which imports what it needs."""
        assert same(self.way.load(self.way.store(small := make(kind, _SMALL[kind]))), small)
        self.value = make(kind, size)
        if size > _SMALL[kind]:
            self.mebibytes = max(_MANY_MIB, round(10 * size))
        tidy()
        return {}

    def once(self) -> dict[str, Any]:
        """Store and read the value."""
        ready(self.mebibytes)
        stored = timed(lambda: self.way.store(self.value))
        if self.mebibytes > _FEW_MIB:
            ready(self.mebibytes)
        loaded = timed(lambda: self.way.load(stored["result"]))
        assert same(loaded.pop("result"), self.value), "another value came back"
        return {"store": stored, "load": loaded, "row": stored.pop("result")}

    def store(self) -> dict[str, Any]:
        """Store the value, no more."""
        return {"row": self.way.store(self.value)}

    def load(self, row: Any) -> dict[str, Any]:
        """Read a value, no more."""
        ready(_MANY_MIB)
        done = timed(lambda: self.way.load(row))
        del done["result"]
        return done

    def stream(self, size: int) -> dict[str, Any]:
        """Store so many MiB as a stream and read them into a file; tell how far that makes it grow."""
        from include.xcom.stores import own_store

        chunk = make("bytes", 1)
        store, done = own_store(), []
        ready(_MANY_MIB)
        tidy()
        stored = peak(
            lambda: done.append(timed(lambda: store.put_stream("xcom/stream", (chunk for _ in range(size)))))
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            ready(_MANY_MIB)
            tidy()
            loaded = peak(lambda: done.append(timed(lambda: store.download(done[0]["result"], path))))
        return {
            "store": {"wall": done[0]["wall"], "cpu": done[0]["cpu"], "peak": stored},
            "load": {"wall": done[1]["wall"], "cpu": done[1]["cpu"], "peak": loaded},
        }

    def large(self, step: str, **values: Any) -> dict[str, Any]:
        """Do a step of ``large``."""
        from large import STEPS

        return STEPS[step](self.way, **values)

    def warm(self, times: int) -> dict[str, Any]:
        """Store and read the value again and again."""

        def repeat() -> None:
            for _ in range(times):
                self.way.load(self.way.store(self.value))

        ready(_FEW_MIB)
        done = timed(repeat)
        return {name: done[name] / times for name in ("cpu", "wall")}

    def fresh(self, kind: str, size: float) -> dict[str, Any]:
        """Store and read in a process that has imported no more than any task has."""
        self.value = make(kind, size)
        tidy()
        ready(_FEW_MIB)
        opened = timed(self.candidate.open)
        self.opened = opened.pop("result")
        return {"import": opened, **self.once()}

    def store_peak(self) -> dict[str, Any]:
        """Tell what storing the value needs beyond it."""
        tidy()
        return {"peak": peak(lambda: self.rows.append(self.way.store(self.value))), "row": self.rows.pop()}

    def load_peak(self, kind: str, row: Any) -> dict[str, Any]:
        """Tell what reading needs, and how much of it the value keeps."""
        small = make(kind, _SMALL[kind])
        assert same(self.way.load(self.way.store(small)), small)
        tidy()
        before = _kilobytes("VmRSS") if sys.platform == "linux" else 0
        highest = peak(lambda: self.rows.append(self.way.load(row)))
        tidy()
        kept = (_kilobytes("VmRSS") - before) * 1024 if sys.platform == "linux" else 0
        return {"peak": highest, "kept": kept}

    def store_many(self, kind: str, size: float, count: int) -> dict[str, Any]:
        """Store a value several times, as mapped tasks would."""
        self.value = make(kind, size)
        self.rows = [self.way.store(self.value) for _ in range(count)]
        return {}

    def fan_in(self, how: str) -> dict[str, Any]:
        """Read all that mapped tasks have stored, through Airflow's own methods."""
        read = fan_in_of(self.candidate.backend, self.rows, how)
        done = timed(lambda: list(read()))
        values = done.pop("result")
        assert len(values) == len(self.rows)
        assert all(same(value, self.value) for value in values)
        return done


def fan_in_of(backend: str, rows: list[Any], how: str) -> Callable[[], Iterable[Any]]:
    """Return what reads the rows: ``XCom.get_all``, or what a task does with a lazy sequence."""
    if not backend:
        import floor

        return lambda: floor.load_many(rows)
    from types import SimpleNamespace

    from airflow.sdk.execution_time import comms, task_runner, xcom
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    xcom.XCom = xcom.resolve_xcom_backend()  # type: ignore[no-untyped-call]

    class Supervisor:
        """Answers as the API server does, and at once."""

        def send(self, msg: Any) -> Any:
            kind = type(msg).__name__
            if kind == "GetXComSequenceSlice":
                return comms.XComSequenceSliceResult(root=rows)
            if kind == "GetXComCount":
                return comms.XComCountResponse(len=len(rows))
            if msg.offset >= len(rows):
                return comms.ErrorResponse()
            return comms.XComSequenceIndexResult(root=rows[msg.offset])

    task_runner.SUPERVISOR_COMMS = Supervisor()  # type: ignore[assignment]
    ids = {"dag_id": "sales", "task_id": "extract", "run_id": "manual"}
    if how == "get_all":
        return lambda: xcom.XCom.get_all(key="return_value", **ids)
    operator = SimpleNamespace(dag_id="sales", task_id="extract")
    source: Any = SimpleNamespace(key="return_value", operator=operator)
    instance: Any = SimpleNamespace(run_id="manual")
    values: LazyXComSequence[Any] = LazyXComSequence(xcom_arg=source, ti=instance)
    if backend.startswith("include."):
        from include.xcom import load_all

        return lambda: load_all(values)
    return lambda: values


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Run; return the result, CPU seconds of all threads, user and system, and wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "result": result}


def peak(work: Callable[[], Any]) -> int:
    """Return by how many bytes the process grew at most while it ran."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # Linux forgets the highest mark.
        before = _kilobytes("VmRSS")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    try:
        after = _kilobytes("VmHWM")
    except OSError:
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024


def _kilobytes(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def tidy() -> None:
    """Give back memory that is free, so that it cannot be used again unseen."""
    gc.collect()
    if pyarrow := sys.modules.get("pyarrow"):
        pyarrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def ready(mebibytes: int) -> None:
    """Let the system have this much memory at hand that is really there.

    A virtual machine may give memory that is free back to its host, a few seconds after it became free.
    Whoever is next to touch such a page waits until the host has found one: 2.3 ms for each MB, on the
    machine of the published figures, against 0.1 for pages that are there. That would hit whoever
    comes first after a pause; so as many pages as a step may need are touched just before it. (Seen
    2026-11-24: touched again after 40 seconds, they took as long as the first time.)
    """
    if sys.platform != "linux":
        return
    with mmap.mmap(-1, mebibytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, len(area), mmap.PAGESIZE):
            area[start] = 1


def same(one: Any, other: Any) -> bool:
    """Compare; kinds that not every candidate brings back are compared by their contents."""
    if hasattr(other, "dtypes"):
        # Microseconds become strings for some, and numbers for others: that is their loss.
        return bool((one["id"].to_numpy() == other["id"].to_numpy()).all())
    if hasattr(other, "nbytes"):
        return bool((one == other).all())
    if isinstance(other, dict):
        return all(same(one[name], part) for name, part in other.items())
    return bool(one == other)


def serve(name: str, path: str) -> None:
    """Do what the other end of a socket says, until it closes."""
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path)
        worker = Worker(name)
        with end.makefile("r") as commands, end.makefile("w") as answers:
            for line in commands:
                command = json.loads(line)
                print(json.dumps(getattr(worker, command.pop("do"))(**command)), file=answers, flush=True)


def main() -> None:
    """Fork a worker for each line of standard input."""
    os.dup2(2, 1)  # Logs of tasks go where nobody has to read them.
    # What the supervisor has imported when it forks a task. The backend belongs to it as well; here
    # the default one does, so that importing a candidate can be measured.
    import airflow.sdk.execution_time.supervisor
    import airflow.sdk.execution_time.task_runner  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.update(order["environment"])
        try:
            serve(order["name"], order["socket"])
        except BaseException:  # noqa: BLE001 - whatever it is, this process of one measurement ends
            traceback.print_exc()
        os._exit(0)


if __name__ == "__main__":
    main()
