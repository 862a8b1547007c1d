"""Which of the ways to run Airflow this is: it decides where settings come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..settings import is_standalone, platform_variables
from .findings import Finding

__all__ = ["examine_mode"]

# In the order in which they are looked for: Astro, Composer and agents run in Kubernetes too.
_PLATFORMS = {
    "COMPOSER_ENVIRONMENT": "Cloud Composer",
    "ASTRONOMER_ENVIRONMENT": "an Astro Deployment",
    "K_SERVICE": "Cloud Run",
    "KUBERNETES_SERVICE_HOST": "Kubernetes: the Helm chart, or an agent of Astro Remote Execution",
}


def examine_mode() -> Iterator[Finding]:
    """Yield how Airflow is run here."""
    if is_standalone():
        name = "astro dev start --standalone: airflow_local_settings.py sets the backend, not the Dockerfile"
    elif found := [text for variable, text in _PLATFORMS.items() if variable in platform_variables()]:
        name = found[0]
    elif os.environ.get("ASTRONOMER_ENVIRONMENT") == "local":
        name = "astro dev start: containers of the Astro CLI"
    elif Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        name = "a container, such as those of docker compose"
    else:
        name = "Airflow on this machine, without containers"
    yield Finding("ok", "mode", name)
