"""Prepare a process for Airflow: logs to stderr, and settings from the metadata database if there is one."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import warnings

__all__ = ["log_to_stderr", "use_database"]


def log_to_stderr() -> None:
    """Send what Airflow logs, through ``logging`` or ``structlog``, to stderr: stdout is for results.

    Does nothing where Airflow is not installed.
    """
    if importlib.util.find_spec("airflow") is None:
        return
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("airflow.configuration")
    # Airflow 3.0 loads it later.
    if importlib.util.find_spec("structlog"):
        import structlog

        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            # Replaced, because the stream of Airflow 3.0's own handler cannot be set.
            root.removeHandler(handler)
            replacement = logging.StreamHandler(sys.stderr)
            replacement.setFormatter(handler.formatter)
            root.addHandler(replacement)


def use_database() -> None:
    """Let Variables and connections of Airflow's database be read, if this process has one.

    A process that is neither a task nor a component sees only those of the environment and of secrets
    backends, unless it asks for more, as `airflow connections get` does. Without a database, or in a
    process that a task started, nothing changes.
    """
    # libpq would wait for minutes for a server that does not answer.
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
    try:
        from airflow.utils.session import create_session
        from sqlalchemy import text

        with create_session() as session:
            session.execute(text("SELECT 1 FROM variable WHERE 1 = 0"))
    except Exception:  # noqa: BLE001 - without a database nothing changes
        return
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
