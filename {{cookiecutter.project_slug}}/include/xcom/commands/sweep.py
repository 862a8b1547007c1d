"""``sweep``: delete the objects that no XCom row refers to.

Such orphans stay behind when rows are deleted without the backend being called (REST API, ``airflow
db clean``), when a key is pushed twice in one try, when Airflow 3.4 keeps the row of a superseded try,
and when a task is killed between upload and row.

An object is deleted only if all of this holds; in any doubt it stays:

- somebody has said that this deployment alone writes below the prefix (``claim``);
- its name lies below this deployment's own prefix and has the form that this backend writes;
- it is older than the age asked for: the store's time of its creation, compared with this machine's
  clock. The least age is an hour, or twice ``timeout_seconds``: a task uploads first and has its row
  written afterwards, so a younger object may be one whose row is on its way;
- Airflow knows its Dag, unless ``--unknown-dags`` says that objects of deleted Dags are to go as well;
- Airflow has answered, in so many words, that the row of this Dag run, task, map index and key does
  not exist, or has given the row, and it names another object;
- with ``--delete``, Airflow has said so a second time, right before the deletion, and the deletion
  names the generation that was listed.

Objects come in the order of their names, a page of 1000 at a time, and one Dag run's after another's:
memory does not grow with the bucket. A name of which a segment was cut and hashed (an id over 200
bytes) cannot be turned back into ids, so such an object stays until the lifecycle rule takes it.
"""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import StoreUnavailableError
from ..reference import Coordinates, PayloadReference, coordinates_of, segment
from ..settings import Settings, load_settings
from ..stores import Listed, Store, own_store
from .api import MISSING, AirflowAPI, AirflowAPIError
from .claim import FOLDER, ClaimError, Claims
from .progress import Progress
from .tables import age, size, table

__all__ = ["Run", "Stopped", "Sweep", "least_age_days", "run_sweep"]

# More would only queue up: one worker of an API server answers about 75 of these a second (measured).
_AT_ONCE = 4
_DAY = 86_400.0
_LEAST_SECONDS = 3600.0
_TABLE_ROWS = 1000
_SHOWN_DAGS = 20
# As many runs in a row that Airflow could not be asked about mean that it cannot be asked at all.
_FAILURES_IN_A_ROW = 5


@dataclass
class Run:
    """What a sweep found in one Dag run, or in what belongs to none.

    Attributes:
        orphans: Objects that no row refers to; ``orphan_bytes`` of them.
        deleted: Of the orphans.
        kept: Objects that a row refers to.
        young: Objects that are younger than the age asked for.
        undecided: Objects that stay because they are not payloads, or belong to a Dag that Airflow
            does not know.
        failed: Objects that stay because Airflow or the store did not answer.
        reason: The first cause of the last two.
    """

    dag_id: str
    run_id: str
    objects: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    deleted: int = 0
    kept: int = 0
    young: int = 0
    undecided: int = 0
    failed: int = 0
    reason: str = ""

    def add(self, other: Run) -> None:
        """Add the counts of another one."""
        for name, value in asdict(other).items():
            if type(value) is int:
                setattr(self, name, getattr(self, name) + value)
        self.reason = self.reason or other.reason

    def leave(self, count: int, reason: str, *, is_failure: bool = False) -> None:
        """Count objects that stay because nothing could be said about them."""
        self.undecided += 0 if is_failure else count
        self.failed += count if is_failure else 0
        self.reason = self.reason or reason


class Stopped(Exception):
    """Airflow or the store cannot be asked any more; ``resume`` is where to go on.

    Args:
        message: Why.
        resume: Name of the first object that was not dealt with.
    """

    def __init__(self, message: str, resume: str) -> None:
        super().__init__(message)
        self.resume = resume


@dataclass
class Sweep:
    """One pass over a prefix.

    Args:
        store: This deployment's own.
        api: Of this deployment's Airflow.
        root: URI of the prefix, with a slash at its end; nothing outside of it is touched.
        prefix: The same as names begin with it; ``""`` for a whole bucket.
        created_before: Seconds since 1970; younger objects stay.
        is_deleting: Else nothing is changed.
        has_unknown_dags: Whether objects of Dags that Airflow does not know are orphans too.
        on_object: Called for each orphan with its outcome: ``orphan``, ``deleted`` or ``gone``.
        on_progress: Called after each object with how many were looked at, how many of them are
            orphans, and the id of the Dag.

    Attributes:
        position: Name of the first object that is not dealt with yet: where to resume.
        left_out: Ids of Dags that Airflow gives this user no word about, and why; none of their objects
            is asked about any more.
    """

    store: Store
    api: AirflowAPI
    root: str
    prefix: str
    created_before: float
    is_deleting: bool = False
    has_unknown_dags: bool = False
    on_object: Callable[[str, Listed], None] = lambda outcome, one: None
    on_progress: Callable[[int, int, str], None] = lambda objects, orphans, dag_id: None
    position: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    total: Run = field(default_factory=lambda: Run("", ""))

    def runs(self, start: str = "") -> Iterator[Run]:
        """Sweep, and yield what was found in each Dag run as soon as it is done.

        Args:
            start: Name of the first object to look at.

        Raises:
            Stopped: Airflow could not be asked about several runs, one after the other, or the store
                could not be listed. What was yielded is done.
            AirflowAPIError: Airflow cannot be asked at all; nothing was listed.
        """
        self._version = self.api.version()
        self._dags: tuple[str, str] = ("", "")
        self._rows: tuple[Any, Counter[int]] = (None, Counter())
        self.position = start
        current: Run | None = None
        failures = 0
        objects = self.store.list(self.prefix, start)
        with ThreadPoolExecutor(_AT_ONCE, "sweep") as threads:
            while True:
                try:
                    page = next(objects, None)
                except StoreUnavailableError as error:
                    raise Stopped(str(error), self.position) from error
                if page is None:
                    break
                payloads = [one for one in page if not one.name.startswith(f"{self.prefix}{FOLDER}/")]
                for (dag_id, run_id), group in _by_run(payloads):
                    if current is None or (current.dag_id, current.run_id) != (dag_id, run_id):
                        if current is not None:
                            yield current
                        current = Run(dag_id, run_id)
                    found = Run(dag_id, run_id)
                    was_asked = self._do(found, group, threads)
                    current.add(found)
                    self.total.add(found)
                    failures = 0 if was_asked else failures + 1
                    if failures >= _FAILURES_IN_A_ROW:
                        raise Stopped(current.reason, self.position)
                    # Looked at again after an interruption: no harm, and a name that can be pasted.
                    self.position = group[-1].name
                    self.on_progress(self.total.objects, self.total.orphans, dag_id)
        if current is not None:
            yield current
        self.position = ""

    def _do(self, run: Run, group: list[Listed], threads: ThreadPoolExecutor) -> bool:
        """Decide about objects of one run; return False if Airflow could not be asked about it."""
        run.objects += len(group)
        old = [one for one in group if one.created < self.created_before]
        run.young += len(group) - len(old)
        named = {one: where for one in old if (where := self._coordinates(one)) is not None}
        if len(named) < len(old):
            run.leave(len(old) - len(named), "the name is not one from which the XCom can be told")
        if not named:
            return True
        if run.dag_id in self.left_out:
            run.leave(len(named), self.left_out[run.dag_id], is_failure=True)
            return True
        try:
            if not self.has_unknown_dags and not self._knows(run.dag_id):
                run.leave(len(named), "Airflow does not know the Dag (--unknown-dags includes it)")
                return True
            is_empty = self.api.count_rows(run.dag_id, run.run_id) == 0
        except (AirflowAPIError, KeyError, TypeError, ValueError) as error:
            run.leave(len(named), f"Airflow did not say: {error}", is_failure=True)
            if isinstance(error, AirflowAPIError) and error.is_final:
                self._leave_out(run.dag_id, error)
                return True
            return False
        outcomes = threads.map(lambda item: self._outcome(item[0], item[1], is_empty), named.items())
        before = self.total.objects + run.objects - len(named)
        for count, (one, outcome) in enumerate(zip(named, outcomes, strict=True), 1):
            if outcome == "kept":
                run.kept += 1
            elif outcome in ("orphan", "deleted", "gone"):
                run.orphans += 1
                run.orphan_bytes += one.size
                run.deleted += outcome == "deleted"
                self.on_object(outcome, one)
            else:
                run.leave(1, outcome, is_failure=True)
            self.on_progress(before + count, self.total.orphans + run.orphans, run.dag_id)
        return True

    def _outcome(self, one: Listed, where: Coordinates, is_empty: bool) -> str:
        try:
            if not is_empty and self._is_referenced(one, where):
                return "kept"
            if not self.is_deleting:
                return "orphan"
            # A row may have been written since.
            if self._is_referenced(one, where):
                return "kept"
            return "deleted" if self.store.delete(one.uri, one.generation) else "gone"
        except AirflowAPIError as error:
            self._leave_out(where.dag_id, error)
            return str(error)
        except StoreUnavailableError as error:
            return str(error)

    def _leave_out(self, dag_id: str, error: AirflowAPIError) -> None:
        """Ask nothing more about a Dag that this user may not read; others can still be asked about.

        A 404 that is not in Airflow's words may concern one id only, such as one with a slash in it.
        """
        if error.status == 403:
            self.left_out[dag_id] = f"Airflow did not say: {error}"

    def _is_referenced(self, one: Listed, where: Coordinates) -> bool:
        value = self.api.value(where)
        if value is not MISSING and _names(value, one.uri):
            return True
        if self._version >= (3, 4) and self._is_ambiguous(where):
            raise AirflowAPIError(
                "several rows have these coordinates (a loop): Airflow 3.4 gives one of them"
            )
        return False

    def _is_ambiguous(self, where: Coordinates) -> bool:
        """Whether a row of Airflow 3.4 other than the one that was given may name the object."""
        task = (where.dag_id, where.run_id, where.task_id, where.key)
        found = self._rows  # Other threads may replace it.
        if found[0] != task:
            rows = self.api.rows(*task)
            found = (task, Counter(row.get("region_index", row["map_index"]) for row in rows))
            self._rows = found
        return found[1][where.map_index] > 1

    def _coordinates(self, one: Listed) -> Coordinates | None:
        """Return the coordinates from which exactly this name would be made again."""
        where = coordinates_of(one.uri)
        if where is None or not one.uri.startswith(self.root):
            return None
        texts = (where.dag_id, where.run_id, where.task_id, str(where.map_index), where.key)
        folders = "/".join(segment(text) for text in texts)
        return where if one.uri.rpartition("/")[0] == f"{self.root}{folders}" else None

    def _knows(self, dag_id: str) -> bool:
        if self._dags[0] != dag_id:
            self._dags = (dag_id, "known" if self.api.knows_dag(dag_id) else "unknown")
        return self._dags[1] == "known"


def _by_run(page: list[Listed]) -> Iterator[tuple[tuple[str, str], list[Listed]]]:
    group: list[Listed] = []
    current = ("", "")
    for one in page:
        where = coordinates_of(one.uri)
        run = (where.dag_id, where.run_id) if where else ("", "")
        if group and run != current:
            yield current, group
            group = []
        current = run
        group.append(one)
    if group:
        yield current, group


def _names(value: Any, uri: str) -> bool:
    """Whether a row's value names the object, in whatever form; better once too often."""
    try:
        reference = PayloadReference.from_row(value)
    except Exception:  # Malformed, or of a newer version: look at all of its text.
        reference = None
    if reference is not None:
        return reference.uri == uri
    if isinstance(value, str):
        return uri in value
    if isinstance(value, dict):
        return any(_names(part, uri) for part in value.values())
    if isinstance(value, list):
        return any(_names(part, uri) for part in value)
    return False


def least_age_days(settings: Settings) -> float:
    """Return the age that a sweep may not go below.

    A task uploads a payload, for up to ``timeout_seconds``, and only then has its row written.
    """
    return max(_LEAST_SECONDS, 2 * settings.timeout_seconds) / _DAY


def run_sweep(
    api: AirflowAPI,
    *,
    age_days: float,
    is_deleting: bool,
    warn: Callable[[str], None],
    resume: str = "",
    has_unknown_dags: bool = False,
    has_objects: bool = False,
    is_json: bool = False,
    is_claiming: bool = False,
    taken_over: str = "",
) -> int:
    """Sweep this deployment's prefix, print what was found, and return the exit code.

    Args:
        is_claiming: Note first that this deployment alone writes below the prefix.
        taken_over: Id of a deployment whose claim goes to this one.

    Raises:
        ValueError: ``resume`` is no name below the prefix, or the age is below the least one.
        AirflowAPIError: Airflow cannot be asked; nothing was looked at.
        PayloadError: The store cannot be asked.
    """
    settings = load_settings()
    prefix = f"{settings.prefix}/" if settings.prefix else ""
    if resume and not resume.startswith(prefix):
        raise ValueError(f"--resume {resume!r} is not below the prefix {prefix!r}")
    least = least_age_days(settings)
    if not age_days >= least:
        raise ValueError(
            f"an age of {age_days:g} days is too low, the least is {least:.4f} ({least * 24:g} hours): a task "
            "uploads its payload first and has its row written afterwards, and what is younger may be waiting "
            "for its row"
        )
    now = time.time()
    store = own_store()
    claims = Claims(store, api, settings.root, prefix)
    progress = Progress(warn)

    def say(text: str) -> None:
        progress.clear()
        warn(text)

    try:
        if is_claiming or taken_over:
            claims.claim(taken_over)
            say(f"Claimed: this deployment alone writes below {settings.root}")
        if is_deleting:
            claims.check()
            claims.renew()
    except ClaimError as error:
        say(f"Nothing was deleted: {error}")
        return 1
    if not is_deleting:
        try:
            claims.check()
        except ClaimError as error:
            say(f"--delete would delete nothing: {error}")
        except AirflowAPIError as error:
            if not error.is_final:
                raise
            say(f"--delete would delete nothing: {error}")

    def on_object(outcome: str, one: Listed) -> None:
        if not has_objects:
            return
        progress.clear()
        if is_json:
            print(json.dumps({"outcome": outcome, "uri": one.uri, "bytes": one.size, "created": one.created}))
        else:
            print(
                f"{outcome.ljust(7)}  {size(one.size).rjust(9)}  {age(now - one.created).rjust(6)}  {one.uri}"
            )

    sweep = Sweep(
        store=store,
        api=api,
        root=settings.root,
        prefix=prefix,
        created_before=now - age_days * _DAY,
        is_deleting=is_deleting,
        has_unknown_dags=has_unknown_dags,
        on_object=on_object,
        on_progress=progress.show,
    )
    stopped = ""
    rows: list[tuple[object, ...]] = []
    more = 0
    try:
        for run in sweep.runs(resume):
            if not run.orphans and not run.undecided and not run.failed:
                continue
            if is_json:
                progress.clear()
                print(json.dumps({"run": asdict(run)}), flush=True)
            elif len(rows) < _TABLE_ROWS:
                rows.append(
                    (run.dag_id or "(no payloads)", run.run_id, run.orphans, size(run.orphan_bytes))
                    + (run.kept, run.undecided, run.failed)
                )
                if run.reason:
                    where = f"{run.dag_id} {run.run_id}" if run.dag_id else "other objects"
                    say(f"{where}: {run.undecided + run.failed} stay: {run.reason}")
            else:
                more += 1
    except (Stopped, KeyboardInterrupt) as error:
        stopped = str(error) or "interrupted"
    progress.clear()
    total = sweep.total
    if is_json:
        print(
            json.dumps(
                {
                    "total": asdict(total),
                    "left_out": sorted(sweep.left_out),
                    "is_complete": not stopped,
                    "resume": sweep.position or None,
                }
            )
        )
    else:
        heads = ("DAG", "RUN", "ORPHANS", "BYTES", "KEPT", "OTHERS", "FAILED")
        if rows:
            print(table(heads, rows, right=("ORPHANS", "BYTES", "KEPT", "OTHERS", "FAILED")))
        if more:
            print(f"… and {more} more Dag runs; --json lists all")
        if sweep.left_out:
            print(f"Left out, since Airflow tells this user nothing of them: {_some(sweep.left_out)}")
        print(
            f"{total.objects} objects below {settings.root}: {total.kept} referred to, {total.young} younger than "
            f"{age_days:g} days, "
            f"{total.undecided} of others, {total.failed} not decided"
        )
        print(
            f"{total.deleted} of {total.orphans} orphans deleted ({size(total.orphan_bytes)})"
            if is_deleting
            else f"{total.orphans} orphans ({size(total.orphan_bytes)}); nothing was deleted, --delete does it"
        )
    if stopped:
        warn(f"Stopped: {stopped}")
        if sweep.position:
            warn(f"Go on with: --resume {shlex.quote(sweep.position)}")
    return 1 if stopped or total.failed else 0


def _some(ids: dict[str, str]) -> str:
    shown = ", ".join(sorted(ids)[:_SHOWN_DAGS])
    return shown if len(ids) <= _SHOWN_DAGS else f"{shown} and {len(ids) - _SHOWN_DAGS} more Dags"
