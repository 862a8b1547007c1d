"""Projects of somebody else, into which the template is taken."""

from __future__ import annotations

from pathlib import Path

from baking import Baked, bake

# The files that `astro dev init` (CLI 1.45) lays out, with plausible contents. Two of them end without
# a line end there, as here.
ASTRO = {
    ".astro/config.yaml": "project:\n    name: sales\n",
    ".astro/dag_integrity_exceptions.txt": "# Dag files without a parse test",
    ".astro/test_dag_integrity_default.py": "def test_parse():\n    pass\n",
    ".dockerignore": "astro\n.git\n.env\nairflow_settings.yaml\nlogs/\n.venv\n",
    ".env": "",
    ".gitignore": ".git\n.env\nairflow_settings.yaml\n__pycache__/\nastro\n.venv\n",
    "Dockerfile": "FROM astrocrpublic.azurecr.io/runtime:3.3-8\n",
    "README.md": "# Sales\n",
    "airflow_settings.yaml": "airflow:\n  connections:\n    - conn_id:\n",
    "dags/.airflowignore": "",
    "dags/exampledag.py": "from airflow.sdk import dag\n\n\n@dag\ndef sales():\n    pass\n\n\nsales()\n",
    "packages.txt": "",
    "requirements.txt": "# Providers of the image need no line here: https://www.astronomer.io/docs",
    "tests/dags/test_dag_example.py": "def test_mine():\n    pass\n",
}

# The same after a year of work, with an override of its own in which nothing is the template's.
ASTRO_IN_USE = ASTRO | {
    ".env": "SECRET_OF_MINE=1",
    "Dockerfile": "FROM astrocrpublic.azurecr.io/runtime:3.1-14\nUSER root\nRUN echo mine\nUSER astro",
    "dags/sales.py": "# mine\n",
    "docker-compose.override.yml": """\
# Our own services; ask Maria before you change them.
services:
    mailhog:  # for alerts
        image: mailhog/mailhog:v1.0.1
        ports: ["8025:8025"]
    scheduler:
        volumes:
        - ./data:/usr/local/airflow/data:ro
        environment:
        - SMTP=mailhog
    # The API server needs mail too.
    api-server:
        environment:
            SMTP: mailhog  # same as above
        depends_on:
            - mailhog

volumes:
    warehouse: {}
""",
    "include/helpers.py": "X = 1\n",
    "include/sql/top.sql": "select 1\n",
    "packages.txt": "libgomp1\n",
    "plugins/mine.py": "# mine\n",
    "pyproject.toml": "[tool.black]\nline-length = 88\n",
    "requirements.txt": "apache-airflow-providers-postgres\nNumPy==2.3.1\nPyArrow>=21",
    "tests/test_sales.py": "def test_sales():\n    pass\n",
}

# Without Astro: the Compose file that Airflow's documentation gives, under its name and with its services.
PLAIN = {
    "README.md": "# Plain Airflow\n",
    "dags/etl.py": "# mine\n",
    "dags/sub/load.py": "# mine too\n",
    "docker-compose.yaml": "services:\n  airflow-scheduler:\n    image: apache/airflow:3.3.2\n",
    "plugins/operators.py": "# mine\n",
    "requirements.txt": "apache-airflow==3.3.2\npandas\n",
}

TREES = {"astro": ASTRO, "astro-in-use": ASTRO_IN_USE, "plain": PLAIN}


def lay_out(tree: dict[str, str], tmp_path: Path) -> Path:
    """Write a project, in a folder that has a name of its own and a neighbour."""
    folder = tmp_path / "out" / "Sales.v2"
    for name, text in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    for name in ("include", "plugins"):
        (folder / name).mkdir(exist_ok=True)
    (folder.parent / "neighbour.txt").write_text("not of the project\n")
    return folder


def adopt(template: Path, folder: Path, **answers: str) -> Baked:
    """Add the template to a project that exists, keeping every file of it."""
    given = {"project_slug": folder.name, "include_examples": "false"} | answers
    return bake(template, folder.parent, given, "--overwrite-if-exists", "--skip-if-file-exists")
