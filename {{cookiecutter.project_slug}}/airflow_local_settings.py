"""Turn the XCom backend on under ``astro dev start --standalone``, which ignores the Dockerfile's ENV.

Every Airflow process imports this file. In any other mode it sets nothing. Cluster policies may be
added here, or be in a file of the same name in ``config/`` or ``plugins/``.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

_HERE = Path(__file__)

# Airflow copies these names into its own settings.
__all__: list[str] = []

if Path(os.environ.get("AIRFLOW_HOME", "")).parts[-2:] == (".astro", "standalone"):
    for _name, _value in {
        "AIRFLOW__CORE__XCOM_BACKEND": "include.xcom_backend.GCPBucketXComBackend",
        "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "include.state_backend.GCSStateBackend",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(_HERE.with_name("plugins")),
    }.items():
        os.environ.setdefault(_name, _value)

# Python finds this file first and would never get to a file of the same name in these folders.
for _other in (_HERE.with_name(_folder) / _HERE.name for _folder in ("config", "plugins")):
    if _other.is_file():
        _found = runpy.run_path(str(_other))
        __all__ = list(_found.get("__all__", (_name for _name in _found if not _name.startswith("__"))))
        globals().update({_name: _found[_name] for _name in __all__})
        break
