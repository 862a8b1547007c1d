"""Programs written in Go that tests need: built once for each checkout, kept in its cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache"


def cached(name: str, version: str) -> Path | None:
    """Return the program if it was kept before."""
    program = _place(name, version)
    return program if os.access(program, os.X_OK) else None


def built(name: str, version: str, package: str) -> Path | None:
    """Build a program from source, in a minute or two; None without Go or without its modules.

    Args:
        name: Of the program, the last part of the package.
        version: Such as ``1.56.1``.
        package: What ``go install`` takes, without the version.
    """
    if not shutil.which("go"):
        return None
    with fresh_folder() as folder:
        environment = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0"}
        environment.setdefault("GOCACHE", str(CACHE / "go-build"))
        environment.setdefault("GOPATH", str(CACHE / "go"))
        command = ["go", "install", f"{package}@v{version}"]
        if subprocess.run(command, env=environment, check=False, timeout=900).returncode:
            return None
        return keep(Path(folder) / name, version)


def fresh_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder on the disk of the cache."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return tempfile.TemporaryDirectory(dir=CACHE)


def keep(program: Path, version: str) -> Path | None:
    """Move it to its place; two runs at once may both do so. None if it does not run on this machine."""
    try:
        program.chmod(0o755)
        subprocess.run([program, "-help"], capture_output=True, check=False, timeout=30)
    except OSError:
        return None
    place = _place(program.name, version)
    place.parent.mkdir(exist_ok=True)
    return program.replace(place)


def _place(name: str, version: str) -> Path:
    return CACHE / f"{name}-{version}" / name
