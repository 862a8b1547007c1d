"""``sweep``: find the objects that no row of an XCom or of state refers to, and delete them with ``--delete``.

``orphans`` and ``state_sweep`` decide about objects, ``claim`` about who may delete.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..settings import Settings, load_settings
from ..stores import Listed, Store, own_store
from ..units import format_count, format_size
from .api import AirflowAPI, AirflowAPIError
from .claim import ClaimError, Claims
from .found import Run, StoppedError
from .orphans import Sweep
from .output import Progress, UsageError, format_age, format_table, warn
from .state_sweep import StateSweep

__all__ = ["Options", "least_age_days", "run_sweep"]

_DAY = 86_400.0
_LEAST_SECONDS = 3600.0
_TABLE_ROWS = 1000
_SHOWN_DAGS = 20


@dataclass(frozen=True)
class Options:
    """What to sweep, and what to print.

    Attributes:
        age_days: Younger objects stay.
        is_deleting: Whether to delete orphans.
        is_thorough: Whether to ask for every row.
        is_claiming: Whether to record first that this deployment alone writes below the prefix.
        taken_over: Id of a deployment whose claim this one takes over.
        has_unknown_dags: Whether objects of Dags that Airflow does not know are orphans too.
        concurrency: Requests to Airflow at a time.
        resume: Object name to begin with.
        has_objects: Whether to print each orphan.
        is_json: Whether to print JSON lines.
    """

    age_days: float = 7.0
    is_deleting: bool = False
    is_thorough: bool = False
    is_claiming: bool = False
    taken_over: str = ""
    has_unknown_dags: bool = False
    concurrency: int = 4
    resume: str = ""
    has_objects: bool = False
    is_json: bool = False


def least_age_days(settings: Settings) -> float:
    """Return the least age that a sweep accepts.

    A task uploads a payload, for up to ``timeout_seconds``, and only then has its row written.
    """
    return max(_LEAST_SECONDS, 2 * settings.timeout_seconds) / _DAY


def run_sweep(api: AirflowAPI, options: Options, say: Callable[[str], None] = warn) -> int:
    """Sweep this deployment's prefix, print what was found, and return the exit code.

    Args:
        api: This deployment's Airflow.
        options: See ``Options``.
        say: Takes what is no result, line by line.

    Raises:
        UsageError: ``resume`` is not below the prefix, or the age is too low.
        AirflowAPIError: Airflow does not answer; nothing was looked at.
        PayloadError: The store cannot be used.
    """
    settings = load_settings()
    prefix = f"{settings.prefix}/" if settings.prefix else ""
    _check(options, settings, prefix)
    store = own_store()
    if not _may_go_on(store, api, settings, prefix, options, say):
        return 1
    now = time.time()
    report = _Report(options, settings.root, now, say)
    sweep = Sweep(
        store=store,
        api=api,
        root=settings.root,
        prefix=prefix,
        created_before=now - options.age_days * _DAY,
        is_deleting=options.is_deleting,
        is_thorough=options.is_thorough,
        has_unknown_dags=options.has_unknown_dags,
        concurrency=options.concurrency,
        on_object=report.add_object,
        on_progress=report.progress.show,
    )
    state = StateSweep(
        store=store,
        api=api,
        prefix=prefix,
        created_before=sweep.created_before,
        is_deleting=options.is_deleting,
        has_unknown_dags=options.has_unknown_dags,
        on_object=report.add_object,
    )
    stopped = ""
    try:
        for run in sweep.runs(options.resume):
            report.add_run(run)
        for run in state.runs():
            report.add_run(run)
    except (StoppedError, KeyboardInterrupt) as error:
        stopped = str(error) or "interrupted"
    finally:
        report.progress.stop()
    sweep.total.add(state.total)
    report.finish(sweep, stopped)
    return 1 if stopped or sweep.total.failed else 0


def _check(options: Options, settings: Settings, prefix: str) -> None:
    if options.resume and not options.resume.startswith(prefix):
        raise UsageError(f"--resume {options.resume!r} is not below the prefix {prefix!r}")
    least = least_age_days(settings)
    if not options.age_days >= least:
        raise UsageError(
            f"an age of {options.age_days:g} days is too low, the least is {least:.4f} ({least * 24:g} hours): "
            "a task uploads its payload first and has its row written afterwards, so a younger object may be "
            "waiting for its row"
        )


def _may_go_on(
    store: Store,
    api: AirflowAPI,
    settings: Settings,
    prefix: str,
    options: Options,
    say: Callable[[str], None],
) -> bool:
    """Claim the prefix if that was asked for; tell whether this deployment may do what was asked."""
    claims = Claims(store, api, settings.root, prefix)
    try:
        if options.is_claiming or options.taken_over:
            claims.claim(options.taken_over)
            say(f"Claimed: this deployment alone writes below {settings.root}")
        claims.check()
        if options.is_deleting:
            claims.renew()
    except ClaimError as error:
        if options.is_deleting or options.is_claiming or options.taken_over:
            say(f"Nothing was deleted: {error}")
            return False
        say(f"--delete would delete nothing: {error}")
    except AirflowAPIError as error:
        if options.is_deleting or options.is_claiming or options.taken_over or not error.is_final:
            raise
        say(f"--delete would delete nothing: {error}")
    return True


class _Report:
    """Prints what a sweep finds: a table and totals, or JSON lines."""

    def __init__(self, options: Options, root: str, now: float, say: Callable[[str], None]) -> None:
        self._options = options
        self._root = root
        self._now = now
        self._say = say
        self._rows: list[tuple[object, ...]] = []
        self._more = 0
        prints_meanwhile = options.is_json or options.has_objects
        self.progress = Progress(say, is_live=not (prints_meanwhile and sys.stdout.isatty()))

    def add_object(self, outcome: str, one: Listed) -> None:
        """Print an orphan, if each is to be printed."""
        if not self._options.has_objects:
            return
        if self._options.is_json:
            print(json.dumps({"outcome": outcome, "uri": one.uri, "bytes": one.size, "created": one.created}))
            return
        size, age = format_size(one.size), format_age(self._now - one.created)
        print(f"{outcome:7}  {size:>10}  {age:>6}  {one.uri}")

    def add_run(self, run: Run) -> None:
        """Print or keep what was found in a Dag run, if anything was."""
        if not run.orphans and not run.undecided and not run.failed:
            return
        if self._options.is_json:
            print(json.dumps({"run": asdict(run)}), flush=True)
            return
        if len(self._rows) >= _TABLE_ROWS:
            self._more += 1
            return
        counts = (run.orphans, format_size(run.orphan_bytes), run.kept, run.undecided, run.failed)
        self._rows.append((run.dag_id or "(no payloads)", run.run_id, *counts))
        if run.reason:
            where = f"{run.dag_id} {run.run_id}" if run.dag_id else "other objects"
            self._say(f"{where}: {run.undecided + run.failed} objects stay: {run.reason}")

    def finish(self, sweep: Sweep, stopped: str) -> None:
        """Print the totals, and where to resume."""
        total = sweep.total
        if self._options.is_json:
            facts = {"total": asdict(total), "left_out": sorted(sweep.left_out), "is_complete": not stopped}
            print(json.dumps(facts | {"resume": sweep.position or None}))
        else:
            self._print_table(sweep)
            print(
                f"{total.objects} objects below {self._root}: {total.kept} referred to, {total.young} younger than "
                f"{self._options.age_days:g} days, {total.undecided} not payloads of a known Dag, "
                f"{total.failed} not decided"
            )
            size = format_size(total.orphan_bytes)
            print(
                f"{total.deleted} of {total.orphans} orphans deleted ({size})"
                if self._options.is_deleting
                else f"{format_count(total.orphans, 'orphan')} ({size}); nothing was deleted"
                + (", --delete does it" if total.orphans else "")
            )
        if stopped:
            self._say(f"Stopped: {stopped}")
            if sweep.position:
                self._say(f"Resume with: --resume {shlex.quote(sweep.position)}")

    def _print_table(self, sweep: Sweep) -> None:
        heads = ("DAG", "RUN", "ORPHANS", "SIZE", "KEPT", "OTHERS", "FAILED")
        if self._rows:
            print(format_table(heads, self._rows, right=heads[2:]))
        if self._more:
            print(f"... and {self._more} more Dag runs; --json lists all")
        if left := sorted(sweep.left_out):
            more = f" and {len(left) - _SHOWN_DAGS} more Dags" if len(left) > _SHOWN_DAGS else ""
            print(f"Skipped: no permission to read the XComs of {', '.join(left[:_SHOWN_DAGS])}{more}")
