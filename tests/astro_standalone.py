"""The environment that `astro dev start --standalone` gives Airflow, built by hand.

From ``airflow/standalone.go: buildEnv`` of Astro CLI 1.45. The CLI reads the Runtime's version from the
Dockerfile, makes ``.venv`` from constraints that are published for it, and runs ``airflow standalone``
there. Neither the Dockerfile's ``ENV`` nor the Compose override has an effect.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME = Path(".astro/standalone")
_FOREIGN = ("AIRFLOW", "ASTRO", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR", "PYTHON", "XCOM_", "GCS_")


def environment(project: Path, port: int) -> dict[str, str]:
    """Return the environment of every process of Airflow.

    Args:
        project: Folder of the project; ``.env`` may be missing, as in a clone.
        port: Of the API server. The CLI takes a random one where 8080 is taken.
    """
    found = {name: text for name, text in os.environ.items() if not name.startswith(_FOREIGN)}
    dotenv = project / ".env"
    for line in dotenv.read_text().splitlines() if dotenv.exists() else []:
        name, is_setting, text = line.strip().partition("=")
        if is_setting and not name.startswith("#"):
            found[name] = text
    secret = f"{project.name}-0123abcd"
    return found | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "AIRFLOW_HOME": str(project / HOME),
        "ASTRONOMER_ENVIRONMENT": "local",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__FERNET_KEY": "d6Vefz3G9U_ynXB3cr7y_Ak35tAHkEGAVxuz_B-jzWw=",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{port}/execution/",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": secret,
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
