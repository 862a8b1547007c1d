"""The library's modules depend on each other in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from baking import REPOSITORY, TEMPLATE_FOLDER

INCLUDE = REPOSITORY / TEMPLATE_FOLDER / "include"
FORBIDDEN = [
    ("xcom.codecs", "xcom.stores"),
    ("xcom.stores", "xcom.codecs"),
    ("xcom.commands", "xcom.viewer"),
    ("xcom.viewer", "xcom.commands"),
]
USERS = ("xcom.commands", "xcom.viewer", "xcom.__main__")


def modules() -> dict[str, Path]:
    """Map the name of each module below ``include`` to its file; a package has the name of its folder."""
    paths = [INCLUDE / "xcom_backend.py", *sorted((INCLUDE / "xcom").rglob("*.py"))]
    return {".".join(path.relative_to(INCLUDE).with_suffix("").parts): path for path in paths}


MODULES = {name.removesuffix(".__init__"): path for name, path in modules().items()}


@cache
def parse(name: str) -> ast.Module:
    """Parse a module."""
    return ast.parse(MODULES[name].read_text())


def imports(name: str, *, top: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each module of ours that a module imports, with the name taken from it or ``""``.

    ``top`` leaves out what is imported inside functions or for type checkers alone.
    """
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    tree = parse(name)
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            source = ".".join(filter(None, base))
            for alias in node.names:
                inner = f"{source}.{alias.name}".lstrip(".")
                yield (inner, "") if inner in MODULES else (source, alias.name)


def below(name: str, package: str) -> bool:
    """Tell whether a module is a package or in it."""
    return name == package or name.startswith(f"{package}.")


def test_the_core_imports_neither_commands_nor_viewer() -> None:
    """Deleting either folder breaks nothing else."""
    core = [name for name in MODULES if not any(below(name, user) for user in USERS)]

    assert len(core) > 15
    assert [
        (name, used) for name in core for used, _ in imports(name) if any(below(used, user) for user in USERS)
    ] == []


def test_neighbours_do_not_import_each_other() -> None:
    """Codecs know nothing of stores nor commands of the viewer, and the reverse."""
    found = [
        (name, used)
        for name in MODULES
        for used, _ in imports(name)
        for importer, imported in FORBIDDEN
        if below(name, importer) and below(used, imported)
    ]

    assert found == []


def test_modules_import_each_other_in_no_cycle() -> None:
    """Any module can be read, and imported, before those that use it."""
    graph = {name: {used for used, _ in imports(name, top=True)} - {name} for name in MODULES}

    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_no_module_uses_a_private_name_of_another() -> None:
    """What another module needs has a public name."""
    found = [
        (name, used, taken)
        for name in MODULES
        for used, taken in imports(name)
        if (taken.startswith("_") and not taken.endswith("__"))
        or (used.split(".")[-1].startswith("_") and "__main__" not in used)
    ]

    assert found == []


def test_modules_import_each_other_by_relative_imports() -> None:
    """The same files work under the name of the package that is made of them."""
    found = [
        (name, node.lineno)
        for name in MODULES
        for node in ast.walk(parse(name))
        if (isinstance(node, ast.ImportFrom) and not node.level and below(str(node.module), "include"))
        or (isinstance(node, ast.Import) and any(below(alias.name, "include") for alias in node.names))
    ]

    assert found == []
