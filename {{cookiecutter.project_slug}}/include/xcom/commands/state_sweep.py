"""Find objects of task and asset state that no row refers to; the part of ``sweep`` for Airflow 3.3 and later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from ..errors import StoreUnavailableError
from ..state import FOLDER, StateKey, key_of_object
from ..stores import Listed, Store, is_part
from .api import AirflowAPI, AirflowAPIError
from .found import Run, StoppedError
from .state_rows import StateRows

__all__ = ["StateSweep"]

# Airflow below has no state store, and a 404 for its rows would say nothing.
_FIRST_VERSION = (3, 3)


@dataclass
class StateSweep:
    """One pass over the objects of state, with the arguments of ``orphans.Sweep``.

    Attributes:
        total: What was found.
    """

    store: Store
    api: AirflowAPI
    prefix: str
    created_before: float
    is_deleting: bool = False
    has_unknown_dags: bool = False
    on_object: Callable[[str, Listed], None] = lambda outcome, one: None
    total: Run = field(default_factory=lambda: Run("", ""))
    _dag: tuple[str, bool] = ("", False)

    def runs(self) -> Iterator[Run]:
        """Sweep, and yield what was found for each Dag run and asset.

        Raises:
            StoppedError: The store could not be listed.
            AirflowAPIError: Airflow does not answer at all.
        """
        rows = StateRows(self.api.get)
        version: tuple[int, ...] = ()
        for (name, run_id), group in groupby(self._objects(), lambda pair: _owner(pair[1])):
            version = version or self.api.version()
            run = Run(name, run_id)
            for one, state in group:
                run.objects += 1
                if one.created >= self.created_before:
                    run.young += 1
                elif version < _FIRST_VERSION:
                    run.leave(1, "this Airflow has no state store: a later version wrote the object")
                elif state is None:
                    run.leave(1, "the name is not that of an object of state, or its ids are hashed")
                else:
                    self._settle(run, one, state, rows)
            self.total.add(run)
            yield run

    def _objects(self) -> Iterator[tuple[Listed, StateKey | None]]:
        prefix = self.prefix.rstrip("/")
        try:
            for page in self.store.list(f"{self.prefix}{FOLDER}/"):
                yield from ((one, key_of_object(one.name, prefix)) for one in page)
        except StoreUnavailableError as error:
            raise StoppedError(str(error)) from error

    def _settle(self, run: Run, one: Listed, state: StateKey, rows: StateRows) -> None:
        try:
            if not is_part(one.name) and rows.is_referenced(state, one.uri):
                run.kept += 1
                return
            if state.scope[0] == "task" and not self.has_unknown_dags and not self._knows(state.scope[1]):
                run.leave(1, "Airflow does not know the Dag (--unknown-dags includes it)")
                return
            # Asked again right before the deletion: the rows above may be those of the scope's first object.
            if (
                self.is_deleting
                and not is_part(one.name)
                and StateRows(self.api.get).is_referenced(state, one.uri)
            ):
                run.kept += 1
                return
            run.orphans += 1
            run.orphan_bytes += one.size
            outcome = "orphan"
            if self.is_deleting:
                outcome = "deleted" if self.store.delete(one.uri, one.generation) else "gone"
                run.deleted += outcome == "deleted"
            self.on_object(outcome, one)
        except (AirflowAPIError, StoreUnavailableError, KeyError, TypeError) as error:
            run.leave(1, f"{type(error).__name__}: {error}", is_failure=True)

    def _knows(self, dag_id: str) -> bool:
        if self._dag[0] != dag_id:
            self._dag = (dag_id, self.api.knows_dag(dag_id))
        return self._dag[1]


def _owner(state: StateKey | None) -> tuple[str, str]:
    """Return what the table shows as Dag and run."""
    if state is None:
        return "", ""
    if state.scope[0] == "asset":
        return f"asset {state.scope[2]}", "(state)"
    return state.scope[1], f"{state.scope[2]} (state)"
