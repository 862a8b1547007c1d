"""What is measured beside each other; each one stores a value and gives back its row, and reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["BUCKET", "CANDIDATES", "Candidate", "Opened"]

BUCKET = "bench"
_PATH = f"gs://google_cloud_default@{BUCKET}/xcom"
_ANONYMOUS = '{"conn_type": "google_cloud_platform", "extra": {"is_anonymous": true, "project": "bench"}}'


class Row(NamedTuple):
    """What Airflow hands to ``deserialize_value``."""

    value: Any


@dataclass(frozen=True)
class Opened:
    """A candidate whose modules are imported."""

    store: Callable[[Any], Any]
    load: Callable[[Any], Any]


@dataclass(frozen=True)
class Candidate:
    """One way to hand on a value.

    Attributes:
        label: In tables and plots.
        backend: ``module.Class`` of an XCom backend; empty for the floor.
        kinds: Of values (see ``values``) that it takes.
        settings: Environment variables beyond those that all share.
    """

    label: str
    backend: str
    kinds: frozenset[str]
    settings: dict[str, str]

    def environment(self, endpoint: str) -> dict[str, str]:
        """Return the variables with which a process finds the bucket."""
        return {
            "STORAGE_EMULATOR_HOST": endpoint,
            "BENCH_BUCKET": BUCKET,
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": _ANONYMOUS,
            "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT": _ANONYMOUS,
            **({"AIRFLOW__CORE__XCOM_BACKEND": self.backend} if self.backend else {}),
            **self.settings,
        }

    def open(self) -> Opened:
        """Import what a task would import for its first value."""
        if not self.backend:
            import floor

            return Opened(floor.store, floor.load)
        module, _, name = self.backend.rpartition(".")
        backend = getattr(import_module(module), name)
        ids = {"dag_id": "sales", "task_id": "extract", "run_id": f"manual__{os.getpid()}", "map_index": -1}
        return Opened(
            lambda value: backend.serialize_value(value, key="return_value", **ids),
            lambda row: backend.deserialize_value(Row(row)),
        )


_OURS = "include.xcom_backend.GCPBucketXComBackend"
_ALL = frozenset({"records", "frame", "array", "bytes", "tree", "bundle"})

CANDIDATES = {
    "ours": Candidate("this backend", _OURS, _ALL, {"AIRFLOW__GCS_XCOM__BUCKET": BUCKET}),
    "arrow": Candidate(
        "this backend, arrow",
        _OURS,
        frozenset({"frame"}),
        {"AIRFLOW__GCS_XCOM__BUCKET": BUCKET, "AIRFLOW__GCS_XCOM__FRAME_FORMAT": "arrow"},
    ),
    "floor": Candidate("floor", "", frozenset({"records", "frame", "array", "bytes"}), {}),
    "object-storage": Candidate(
        "object storage",
        "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        frozenset({"records", "frame"}),
        {
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": _PATH,
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
            # Else gcsfs asks Google itself about the bucket, over gRPC, whatever the emulator's address.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        },
    ),
    "blog-post": Candidate(
        "blog post",
        "blog_post.BlogPostXComBackend",
        frozenset({"records"}),
        {"AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME": BUCKET},
    ),
}
