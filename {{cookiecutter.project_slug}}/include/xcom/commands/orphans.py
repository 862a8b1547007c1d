"""Find the objects that no XCom row refers to.

Such orphans remain when rows are deleted without the backend being called (REST API, ``airflow db
clean``), when a key is pushed twice in one try, when Airflow 3.4 keeps the row of a superseded try, and
when a task is killed between upload and row.

An object is deleted only if all of this holds; in any doubt it stays:

- its name is below this deployment's own prefix and is one that this backend writes;
- it is older than ``created_before``: a task uploads first and has its row written afterwards, so a
  younger object may be one whose row is on its way;
- Airflow knows its Dag, or ``has_unknown_dags`` says that deleted Dags count too;
- Airflow, asked about this one XCom right before the deletion, answered in so many words that it has no
  row, or gave the row, and it names another payload;
- the deletion names the generation that was listed.

Which XComs have rows is first read from pages of rows. What has a row there stays without a further
question, unless its folder holds several payloads, or the sweep is thorough: then the row itself tells
which payload it names.

Objects come ordered by name, in pages of 1000, so memory does not grow with the bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

from ..errors import StoreUnavailableError
from ..reference import Coordinates, PayloadReference, coordinates_of, is_hashed, is_in_folder, stem_of
from ..stores import Listed, Store, is_part
from .api import MISSING, AirflowAPI, AirflowAPIError
from .found import Run, StoppedError
from .rows import RowIndex, TooManyRowsError, find_dag, find_row

__all__ = ["Sweep"]

# Pages of objects that are looked at together, so that requests to Airflow have company.
_PAGES_AT_ONCE = 4
# As many runs in a row that Airflow did not answer about mean that it does not answer at all.
_FAILURES_IN_A_ROW = 5


class Payload(NamedTuple):
    """The objects of one payload: itself and its attachments, which share the unique part of the name.

    Attributes:
        stem: URI up to the first dot of its last part.
        objects: As listed.
    """

    stem: str
    objects: list[Listed]

    @property
    def is_part(self) -> bool:
        """Whether it belongs to an upload that was killed; no row names it."""
        return is_part(self.objects[0].name)


class Folder(NamedTuple):
    """The payloads of one XCom that are old enough to be deleted.

    Attributes:
        all_payloads: Payloads in the folder, younger ones included, parts of uploads not.
    """

    coordinates: Coordinates
    payloads: list[Payload]
    all_payloads: int

    @property
    def uri(self) -> str:
        """URI of one of its objects."""
        return self.payloads[0].objects[0].uri

    @property
    def path(self) -> str:
        """Its own part of the URI; see ``reference.folder_of``."""
        return "/".join(self.uri.split("/")[-6:-1])


class Outcome(NamedTuple):
    """What became of a payload.

    Attributes:
        kind: ``kept``, ``orphan``, ``deleted``, ``gone``, ``undecided``, or ``failed``.
        reason: Of the last two.
    """

    kind: str
    reason: str = ""


class _UndecidedError(Exception):
    """All objects of a Dag stay."""

    def __init__(self, reason: str, *, is_failure: bool) -> None:
        super().__init__(reason)
        self.is_failure = is_failure


@dataclass
class Sweep:
    """One pass over a prefix.

    Args:
        store: This deployment's own.
        api: This deployment's Airflow.
        root: URI of the prefix, with a slash at its end. Nothing outside of it is touched.
        prefix: The same as the beginning of names; ``""`` for a whole bucket.
        created_before: Seconds since 1970; younger objects stay.
        is_deleting: Whether to delete.
        is_thorough: Whether to ask for every row, which also finds the only payload of an XCom whose row
            names none any more.
        has_unknown_dags: Whether objects of Dags that Airflow does not know are orphans too.
        concurrency: Requests to Airflow at a time.
        on_object: Called for each object of an orphan with its outcome.
        on_progress: Called now and then with the objects so far, the orphans among them, and the Dag.

    Attributes:
        position: Name of the last object that was dealt with: where to resume.
        left_out: Dags that the user may not read, with the reason; nothing more is asked about them.
        total: Counts of all runs.
    """

    store: Store
    api: AirflowAPI
    root: str
    prefix: str
    created_before: float
    is_deleting: bool = False
    is_thorough: bool = False
    has_unknown_dags: bool = False
    concurrency: int = 4
    on_object: Callable[[str, Listed], None] = lambda outcome, one: None
    on_progress: Callable[[int, int, str], None] = lambda objects, orphans, dag_id: None

    def __post_init__(self) -> None:
        """Start with nothing found."""
        self.position = ""
        self.left_out: dict[str, str] = {}
        self.total = Run("", "")
        self._dag: tuple[str, str | None] = ("", None)
        self._version: tuple[int, ...] = ()

    def runs(self, start: str = "") -> Iterator[Run]:
        """Sweep, and yield what was found in each Dag run as soon as it is done.

        Args:
            start: Name of the first object to look at.

        Raises:
            StoppedError: Airflow did not answer about several runs, one after the other, or the store
                could not be listed. What was yielded is done.
            AirflowAPIError: Airflow does not answer at all; nothing was listed.
        """
        self._version = self.api.version()
        self.position = start
        current: Run | None = None
        failures = 0
        with ThreadPoolExecutor(self.concurrency, "sweep") as threads:
            index = RowIndex(self.api, threads)
            for objects in self._pages(start):
                for found, is_answered in self._sweep_page(objects, index, threads):
                    if current is None:
                        current = found
                    elif (current.dag_id, current.run_id) == (found.dag_id, found.run_id):
                        current.add(found)
                    else:
                        yield current
                        current = found
                    failures = 0 if is_answered else failures + 1
                    if failures >= _FAILURES_IN_A_ROW:
                        raise StoppedError(current.reason)
        if current is not None:
            yield current
        self.position = ""

    # --------------------------------------------------------------------------------- what is there

    def _pages(self, start: str) -> Iterator[list[Listed]]:
        """Yield pages of objects that may be payloads, never with a part of a folder at their end."""
        rest: list[Listed] = []
        pages = self.store.list(self.prefix, start)
        is_more = True
        while is_more:
            try:
                several = list(islice(pages, _PAGES_AT_ONCE))
            except StoreUnavailableError as error:
                raise StoppedError(str(error)) from error
            is_more = len(several) == _PAGES_AT_ONCE
            objects = rest + [one for page in several for one in page if not self._is_reserved(one.name)]
            rest = []
            while is_more and objects and (not rest or _folder(objects[-1].name) == _folder(rest[0].name)):
                rest.append(objects.pop())
            rest.reverse()
            yield objects

    def _is_reserved(self, name: str) -> bool:
        """Tell whether a name is in a folder such as ``=deployment``; no Dag id becomes such a folder."""
        folder = name.removeprefix(self.prefix).partition("/")[0]
        return folder.startswith("=") and folder != "="

    def _sort(self, objects: list[Listed], run: Run) -> list[Folder]:
        """Return the payloads that can be told and are old enough, by folder; count the others."""
        run.objects += len(objects)
        folders = []
        for _, group in groupby(objects, lambda one: _folder(one.name)):
            named = list(group)
            coordinates = self._coordinates(named[0])
            if coordinates is None:
                young = sum(one.created >= self.created_before for one in named)
                run.young += young
                if young < len(named):
                    run.leave(len(named) - young, "the name is not that of a payload")
                continue
            every = [
                Payload(stem, list(parts)) for stem, parts in groupby(named, lambda one: stem_of(one.uri))
            ]
            old = [one for one in every if all(part.created < self.created_before for part in one.objects)]
            run.young += len(named) - sum(len(payload.objects) for payload in old)
            if old:
                count = sum(not payload.is_part for payload in every)
                folders.append(Folder(coordinates, old, count))
        return folders

    def _coordinates(self, one: Listed) -> Coordinates | None:
        """Return the coordinates from which this name is made; hashed ids stay as they are in the name."""
        found = coordinates_of(one.uri)
        if found is None or not one.uri.startswith(self.root):
            return None
        is_ours = is_hashed(one.uri) or is_in_folder(one.uri, found)
        return found if is_ours and _folder(one.uri).count("/") == self.root.count("/") + 4 else None

    # ------------------------------------------------------------------------------- what Airflow says

    def _sweep_page(
        self, objects: list[Listed], index: RowIndex, threads: ThreadPoolExecutor
    ) -> Iterator[tuple[Run, bool]]:
        """Yield what was found in each run of a page, and whether Airflow answered about it."""
        by_run = []
        for (dag_id, run_id), group in groupby(objects, _run_of):
            run, named = Run(dag_id, run_id), list(group)
            by_run.append((run, self._sort(named, run), named[-1].name))
        for dag_id, runs in groupby(by_run, lambda one: one[0].dag_id):
            of_dag = list(runs)
            trouble = self._open_dag(
                dag_id, {run.run_id: folders for run, folders, _ in of_dag if folders}, index
            )
            for run, folders, last in of_dag:
                is_answered = self._sweep_run(run, folders, trouble, index, threads)
                self.total.add(run)
                self.position = last
                yield run, is_answered

    def _open_dag(
        self, dag_id: str, runs: dict[str, list[Folder]], index: RowIndex
    ) -> _UndecidedError | None:
        """List the rows of a Dag; return why its objects stay, if they do."""
        if not runs:
            return None
        if dag_id in self.left_out:
            return None
        try:
            if self._dag[0] != dag_id:
                found = find_dag(self.api, next(iter(runs.values()))[0].uri)
                is_known = found is not None and self.api.knows_dag(found)
                self._dag = (dag_id, found if is_known else None)
            known = self._dag[1]
            if known is None and not self.has_unknown_dags:
                return _UndecidedError(
                    "Airflow does not know the Dag (--unknown-dags includes it)", is_failure=False
                )
            if known is not None and not self.is_thorough:
                index.load(known, {run_id: len(folders) for run_id, folders in runs.items()})
        except AirflowAPIError as error:
            self._leave_out(dag_id, error)
            return _UndecidedError(f"Airflow did not answer: {error}", is_failure=True)
        return None

    def _sweep_run(
        self,
        run: Run,
        folders: list[Folder],
        trouble: _UndecidedError | None,
        index: RowIndex,
        threads: ThreadPoolExecutor,
    ) -> bool:
        """Decide about the objects of one run; return whether Airflow answered about it."""
        count = sum(len(payload.objects) for folder in folders for payload in folder.payloads)
        if not count:
            return True
        has_row: list[bool | None] = []
        if run.dag_id in self.left_out:
            trouble = _UndecidedError(self.left_out[run.dag_id], is_failure=True)
        is_listed = self._dag[1] is not None and not self.is_thorough
        try:
            if trouble is None:
                has_row = [index.has_row(run.run_id, one.path) if is_listed else None for one in folders]
        except AirflowAPIError as error:
            self._leave_out(run.dag_id, error)
            trouble = _UndecidedError(f"Airflow did not answer: {error}", is_failure=True)
        if trouble is not None:
            run.leave(count, str(trouble), is_failure=trouble.is_failure)
            return not trouble.is_failure or run.dag_id in self.left_out
        done = self.total.objects + run.objects - count
        failed = run.failed
        for folder, outcomes in zip(folders, threads.map(self._settle, folders, has_row), strict=True):
            for payload, outcome in zip(folder.payloads, outcomes, strict=True):
                self._count(run, payload, outcome)
                done += len(payload.objects)
            # Looked at again after an interruption, which does no harm.
            self.position = folder.payloads[-1].objects[-1].name
            self.on_progress(done, self.total.orphans + run.orphans, run.dag_id)
        return run.failed - failed < count or run.dag_id in self.left_out

    def _count(self, run: Run, payload: Payload, outcome: Outcome) -> None:
        count = len(payload.objects)
        if outcome.kind == "kept":
            run.kept += count
        elif outcome.kind in ("undecided", "failed"):
            run.leave(count, outcome.reason, is_failure=outcome.kind == "failed")
        else:
            run.orphans += count
            run.orphan_bytes += sum(one.size for one in payload.objects)
            run.deleted += count if outcome.kind == "deleted" else 0
            for one in payload.objects:
                self.on_object(outcome.kind, one)

    def _settle(self, folder: Folder, has_row: bool | None) -> list[Outcome]:
        return [self._outcome(folder, payload, has_row) for payload in folder.payloads]

    def _outcome(self, folder: Folder, payload: Payload, has_row: bool | None) -> Outcome:
        """Decide about one payload; delete it if it is an orphan and that was asked for."""
        try:
            if self._is_referenced(folder, payload, has_row):
                return Outcome("kept")
            if not self.is_deleting:
                return Outcome("orphan")
            deleted = [self.store.delete(one.uri, one.generation) for one in payload.objects]
            return Outcome("deleted" if any(deleted) else "gone")
        except TooManyRowsError as error:
            return Outcome("undecided", str(error))
        except AirflowAPIError as error:
            self._leave_out(folder.coordinates.dag_id, error)
            return Outcome("failed", str(error))
        except StoreUnavailableError as error:
            return Outcome("failed", str(error))

    def _is_referenced(self, folder: Folder, payload: Payload, has_row: bool | None) -> bool:
        if payload.is_part:
            return False
        if has_row and folder.all_payloads == 1:
            return True
        if has_row is False and not self.is_deleting and not is_hashed(folder.uri):
            return False  # Nothing is deleted, so the listing is good enough.
        where = find_row(self.api, folder.uri)
        if where is None:
            return False
        has_regions = self._version >= (3, 4)
        try:
            row = self.api.value(where)
        except AirflowAPIError as error:
            # In a loop, a map index alone names no row.
            if not has_regions or error.status not in (400, 404, 409):
                raise
            row = MISSING
        if row is not MISSING and _names(row, payload.stem):
            return True
        return has_regions and any(_names(one, payload.stem) for one in self.api.values_of_regions(where))

    def _leave_out(self, dag_id: str, error: AirflowAPIError) -> None:
        """Ask nothing more about a Dag that the user may not read; others can still be asked about.

        A 404 in other words than Airflow's may concern a single id, such as one with a slash in it.
        """
        if error.status == 403:
            self.left_out[dag_id] = f"Airflow did not answer: {error}"


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _run_of(one: Listed) -> tuple[str, str]:
    where = coordinates_of(one.uri)
    return (where.dag_id, where.run_id) if where else ("", "")


def _names(value: Any, stem: str) -> bool:
    """Tell whether a row names a payload, in whatever form; better once too often."""
    try:
        reference = PayloadReference.from_row(value)
    except Exception:  # noqa: BLE001 - Malformed, or of a newer version: look at all of its text.
        reference = None
    if reference is not None:
        return stem_of(reference.uri) == stem
    if isinstance(value, str):
        return stem in value
    if isinstance(value, dict):
        return any(_names(part, stem) for part in value.values())
    if isinstance(value, list):
        return any(_names(part, stem) for part in value)
    return False
