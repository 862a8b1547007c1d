"""Whatever a Dag can pass through Airflow's default backend passes through this one, at least as exact."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import example_values as values
import pytest
from airflow.sdk.bases.xcom import BaseXCom
from include.xcom import payloads
from include.xcom.codecs.classes import allow_lists, serde
from include.xcom.errors import UnsupportedTypeError
from include.xcom.reference import Coordinates

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")
Row = namedtuple("Row", "value")
# Airflow 3.0 refuses pydantic models.
KNOWS_MODELS = any(
    (Path(folder) / "serializers" / "pydantic.py").exists()
    for folder in (Path(serde().__file__ or "").parent, Path(serde().__file__ or "").parent.parent)
)

VALUES: dict[str, Any] = {
    **values.ALL,
    **{name: case.value for name, case in values.INEXACT.items()},
    **values.ODD,
}


class Refused(NamedTuple):
    """What came instead of a value."""

    error: Exception


@pytest.fixture(params=["airflow.* example_values.*", "airflow.*"], ids=["permitted", "not-permitted"])
def allowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Permit the classes of the values, or none."""
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", request.param)
    forget()
    yield
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Let Airflow and the backend read the setting again."""
    allow_lists.cache_clear()
    for name in ("_get_patterns", "_get_regexp_patterns", "_match_glob", "_match_regexp"):
        getattr(getattr(serde(), name, None), "cache_clear", lambda: None)()


def through_default(value: Any) -> Any:
    """Return what a reader gets from Airflow's default backend."""
    try:
        row = json.loads(json.dumps(BaseXCom.serialize_value(value)))
        return BaseXCom.deserialize_value(Row(row))
    except Exception as error:  # noqa: BLE001 - serialisers raise anything
        return Refused(error)


def through_ours(value: Any) -> Any:
    """Return what a reader gets from this backend."""
    try:
        return payloads.load(json.loads(json.dumps(payloads.store(value, HERE))))
    except UnsupportedTypeError as error:
        return Refused(error)


def equal(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, be it of other types."""
    try:
        return bool(one == other)
    except ValueError:  # Frames and arrays have no one answer.
        return False


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_value_that_airflow_returns_comes_back_exactly_or_as_from_airflow(value: Any) -> None:
    """Never refused, and never changed in another way."""
    default, ours = through_default(value), through_ours(value)

    if not isinstance(default, Refused):
        assert not isinstance(ours, Refused), ours
    if not isinstance(ours, Refused):
        is_kept = values.same(value, ours) or values.same(default, ours) or equal(value, ours)
        if not is_kept and isinstance(default, Refused) and not KNOWS_MODELS:
            pytest.skip("this Airflow has no serializer of pydantic models; ours gives what later ones give")
        assert is_kept


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_nothing_comes_back_changed_where_that_is_refused(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``inexact = refuse``, what is stored is what was returned."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__INEXACT", "refuse")

    ours = through_ours(value)

    assert isinstance(ours, Refused) or values.same(value, ours)
