"""The XCom backend that the blog post of 2023 describes, written anew: a file of JSON, by GCSHook."""

from __future__ import annotations

import json
import tempfile
import uuid
from typing import Any

from airflow.providers.google.cloud.hooks.gcs import GCSHook
from airflow.sdk import Variable
from airflow.sdk.bases.xcom import BaseXCom

_PREFIX = "gcs://"


class BlogPostXComBackend(BaseXCom):
    """One JSON object per value; the database keeps its name."""

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Write the value to a temporary file and upload it."""
        hook = GCSHook(gcp_conn_id="google_cloud_storage_default")
        name = f"{run_id}/{task_id}/{uuid.uuid4()}.json"
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(value, file)
            file.flush()
            hook.upload(Variable.get("XCOM_BACKEND_DATA_GCS_NAME"), name, filename=file.name)
        return BaseXCom.serialize_value(_PREFIX + name)

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Download the object into a temporary file and parse it."""
        row = BaseXCom.deserialize_value(result)
        if not (isinstance(row, str) and row.startswith(_PREFIX)):
            return row
        hook = GCSHook(gcp_conn_id="google_cloud_storage_default")
        name = row.removeprefix(_PREFIX)
        with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
            hook.download(Variable.get("XCOM_BACKEND_DATA_GCS_NAME"), name, filename=file.name)
            return json.load(file)
