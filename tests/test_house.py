"""The house rules that a machine can check.

Each check is a function from a repository to its complaints. Each also has a case at the end of
this file that must make it complain, so that no check can decay into one that always passes.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each layer may import those before it and itself. `tonsor` is the front door, which opens lazily
# onto `api` and the nouns: only what stands above `api` may come in through it.
LAYERS = (
    "_version",
    "errors",
    "files",
    "drops",
    "fibres",
    "types",
    "kernels",
    "graph",
    "axes",
    "cost",
    "surgery",
    "explain",
    "anatomy",
    "plan_parts",
    "plans",
    "drop_json",
    "fibre_json",
    "plan_json",
    "artifact",
    "families",
    "criteria",
    "select",
    "api",
    "deploy",
    "zoo",
    "train",
    "recover",
    "sensitivity",
    "methods",
    "report",
    "study",
    "tonsor",
    "demo",
    "cli",
    "__main__",
)
MAX_LINES = 400
TYPES_ONLY = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


# ---------------------------------------------------------------- reading the source


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, where it is, and what it says."""

    name: str
    path: Path
    where: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        return layer_of(self.name)

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def layer_of(name: str) -> str:
    return name.split(".")[1] if "." in name else name


@functools.cache
def modules(root: Path) -> dict[str, Module]:
    """Every module of the library, by its dotted name."""
    found = {}
    for path in sorted((root / "src" / "tonsor").rglob("*.py")):
        parts = path.relative_to(root / "src").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        where = path.relative_to(root).as_posix()
        found[name] = Module(name, path, where, ast.parse(path.read_text("utf-8"), where))
    return found


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement that runs, those in functions included; not those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in TYPES_ONLY:
            yield from (s for branch in child.orelse for s in (branch, *statements(branch)))
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from statements(child)


def imports(root: Path, module: Module) -> Iterator[tuple[str, int]]:
    """The modules of ours that a module imports, at its top or anywhere in it, with the line."""
    known = modules(root)
    for statement in statements(module.tree):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                up = module.package.split(".")[: 1 - statement.level or None]
                base = ".".join([*up, *([base] if base else [])])
            inside = [f"{base}.{alias.name}" for alias in statement.names]
            names = [name if name in known else base for name in inside]
        else:
            continue
        for name in dict.fromkeys(names):
            if name.split(".")[0] == "tonsor":
                yield name, statement.lineno


# ---------------------------------------------------------------- the checks


def upward_imports(root: Path) -> list[str]:
    """Imports go downwards only."""
    complaints = []
    for module in modules(root).values():
        if module.layer not in LAYERS:
            complaints.append(
                f"{module.where}: '{module.layer}' has no place in LAYERS; give it one"
            )
            continue
        if module.name == "tonsor":
            continue  # the front door sees everything, lazily
        for name, line in imports(root, module):
            layer = layer_of(name)
            below = LAYERS[: LAYERS.index(module.layer)]
            if layer != module.layer and layer not in below:
                complaints.append(
                    f"{module.where}:{line}: {module.layer} may not import {layer} ({name}); "
                    f"below it are only: {', '.join(below) or 'none'}"
                )
    return complaints


def import_cycles(root: Path) -> list[str]:
    """No module imports itself by way of others, not even lazily."""
    graph = {
        module.name: {name for name, _ in imports(root, module)} - {"tonsor", module.name}
        for module in modules(root).values()
        if module.name != "tonsor"
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["modules import each other in a circle: " + " <- ".join(error.args[1])]
    return []


def long_files(root: Path) -> list[str]:
    """A file that grows too long holds two ideas."""
    lengths = {m.where: len(m.path.read_text("utf-8").splitlines()) for m in modules(root).values()}
    return [
        f"{where}: {length} lines, {MAX_LINES} are allowed; split it by idea"
        for where, length in lengths.items()
        if length > MAX_LINES
    ]


def missing_docstrings(root: Path) -> list[str]:
    """Whatever has a public name says what it is."""

    def undocumented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            repeated = any(m.endswith(("overload", ".setter", ".deleter")) for m in marks)
            if node.name.startswith("_") or repeated:
                continue
            if not ast.get_docstring(node):
                yield prefix + node.name, node.lineno
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")

    return [
        f"{module.where}:{line}: '{name}' has no docstring; say in one line what it is"
        for module in modules(root).values()
        if not any(part.startswith("_") for part in module.name.split("."))
        for name, line in undocumented(module.tree.body, "")
    ]


LOOK_AT_FRONT_DOOR = """
import json, sys
import tonsor
heavy = sorted({"numpy", "torch", "transformers"} & set(sys.modules))
names = list(getattr(tonsor, "__all__", []))
listed = dir(tonsor)
lost = [name for name in names if not hasattr(tonsor, name)]
version = getattr(tonsor, "__version__", "")
print(json.dumps([tonsor.__file__, heavy, names, listed, lost, version]))
"""


@functools.cache
def front_door(root: Path) -> tuple[str, list[str], list[str], list[str], list[str], str]:
    """Import the library in a fresh interpreter and say what came of it."""
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LOOK_AT_FRONT_DOOR]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"`import tonsor` failed:\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def heavy_import(root: Path) -> list[str]:
    """`import tonsor` costs next to nothing."""
    file, heavy, *_ = front_door(root)
    assert Path(file).is_relative_to(root), f"looked at the wrong tonsor: {file}"
    return [f"`import tonsor` imports {name}; make it lazy" for name in heavy]


def public_names(root: Path) -> list[str]:
    """`__all__` is sorted, every name in it is there, and every public name is in it."""
    _, _, names, listed, lost, _ = front_door(root)
    door = modules(root)["tonsor"]
    if not any(isinstance(node, ast.Name) and node.id == "__all__" for node in ast.walk(door.tree)):
        return [f"{door.where}: there is no __all__"]
    complaints = []
    if names != sorted(set(names)):
        complaints.append(f"__all__ is not sorted: it should read {sorted(set(names))}")
    complaints += [f"__all__ names '{name}', but tonsor.{name} does not exist" for name in lost]
    complaints += [f"dir(tonsor) does not list '{n}'" for n in names if n not in listed]
    brought = {
        alias.asname or alias.name
        for node in ast.walk(door.tree)
        if isinstance(node, ast.ImportFrom) and (node.level or node.module in modules(root))
        for alias in node.names
    }
    verbs = {
        node.name
        for module in modules(root).values()
        if module.name in ("tonsor", "tonsor.api")
        for node in module.tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for name in sorted(brought | verbs):
        if not name.startswith("_") and name not in names:
            complaints.append(f"'{name}' is public but not in __all__; add it or prefix it with _")
    return complaints


def differing_versions(root: Path) -> list[str]:
    """The package, its metadata and its changelog speak of the same version."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[?(\d[^\]\s]*)", changelog, re.MULTILINE)
    versions = {
        "src/tonsor/__init__.py": front_door(root)[-1],
        "pyproject.toml": project["version"],
        "CHANGELOG.md": newest[1] if newest else "",
    }
    if len(set(versions.values())) == 1:
        return []
    return [f"{file} says version '{version}'" for file, version in versions.items()]


MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|opt|root|home)/\S*")


def machine_paths(root: Path) -> list[str]:
    """Nothing is written for one machine only."""
    complaints = []
    for folder, inner, files in os.walk(root):
        hidden = {name for name in inner if name.startswith(".") and name not in (".ci", ".github")}
        inner[:] = sorted(set(inner) - hidden - {"__pycache__", "build", "dist", "htmlcov", "runs"})
        for path in (Path(folder) / name for name in sorted(set(files) - {".git"})):
            try:
                lines = path.read_text("utf-8").splitlines()
            except UnicodeDecodeError:
                continue  # not a text
            complaints += [
                f"{path.relative_to(root)}:{number}: names a path of one machine: {hit[0]}"
                for number, line in enumerate(lines, 1)
                if (hit := MACHINE_PATH.search(line))
            ]
    return complaints


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    upward_imports,
    import_cycles,
    long_files,
    missing_docstrings,
    heavy_import,
    public_names,
    differing_versions,
    machine_paths,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_is_in_order(check: Callable[[Path], list[str]]) -> None:
    complaints = check(ROOT)
    assert not complaints, "\n".join([check.__doc__ or "", *complaints])


# ---------------------------------------------------------------- the checks can fail

ORDERLY = {
    "pyproject.toml": '[project]\nversion = "1.2"\n',
    "CHANGELOG.md": "## [Unreleased]\n## [1.2] - today\n## [1.1] - before\n",
    "src/tonsor/__init__.py": '__version__ = "1.2"\n__all__ = ["A", "b"]\nA = b = 0\n',
    "src/tonsor/types.py": (
        "from typing import TYPE_CHECKING\n"
        "import tonsor.errors\n"
        "if TYPE_CHECKING:\n    from tonsor.cli import x\n"
        "class _Hidden: pass\n"
    ),
    "src/tonsor/errors.py": "",
    "src/tonsor/axes/__init__.py": "",
    "src/tonsor/axes/solve.py": "from . import algebra\nfrom ..types import x\n",
    "src/tonsor/axes/algebra.py": "",
    "src/tonsor/demo.py": "from tonsor import b\n",
}

# check, one file written wrongly, its text, and part of the complaint
BROKEN = [
    (
        upward_imports,
        "types.py",
        "def f():\n    from tonsor.graph import x",
        "types.py:2: types may",
    ),
    (
        upward_imports,
        "types.py",
        "from .axes import solve",
        "may not import axes (tonsor.axes.solve)",
    ),
    (upward_imports, "api.py", "def f():\n    import tonsor", "api may not import tonsor"),
    (upward_imports, "axes/solve.py", "from ..select.rank import x", "axes may not import select"),
    (upward_imports, "utils.py", "", "'utils' has no place in LAYERS"),
    (
        import_cycles,
        "axes/algebra.py",
        "def f():\n    from .solve import x",
        "in a circle: tonsor.",
    ),
    (long_files, "types.py", "\n" * 401, "types.py: 401 lines, 400 are allowed"),
    (
        missing_docstrings,
        "types.py",
        "class A:\n    'yes'\n    def f(self): ...",
        "types.py:3: 'A.f'",
    ),
    (missing_docstrings, "types.py", "\ndef f(): ...", "types.py:2: 'f' has no docstring"),
    (heavy_import, "__init__.py", "import numpy", "imports numpy"),
    (public_names, "__init__.py", "", "there is no __all__"),
    (public_names, "__init__.py", "__all__ = ['b', 'A']\nA = b = 0", "__all__ is not sorted"),
    (public_names, "__init__.py", "__all__ = ['A']", "but tonsor.A does not exist"),
    (
        public_names,
        "__init__.py",
        "__all__ = []\nfrom tonsor.axes import algebra as c",
        "'c' is public",
    ),
    (
        public_names,
        "__init__.py",
        "__all__ = []\ndef __dir__(): return []\ndef f(): ...",
        "'f' is public",
    ),
    (
        public_names,
        "__init__.py",
        "__all__ = ['A']\nA = 0\ndef __dir__(): return []",
        "not list 'A'",
    ),
    (public_names, "api.py", "def prune(): ...", "'prune' is public but not in __all__"),
    (differing_versions, "__init__.py", "__version__ = '1.3'", "says version '1.3'"),
    (differing_versions, "../../CHANGELOG.md", "## [Unreleased]\n", "CHANGELOG.md says version ''"),
    (differing_versions, "../../pyproject.toml", "[project]\nversion='1.1'", "says version '1.1'"),
    (
        machine_paths,
        "types.py",
        "x = '/" + "opt/wheels'",
        "types.py:1: names a path of one machine",
    ),
]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_accepts_an_orderly_house(
    check: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    write(tmp_path, ORDERLY)
    assert check(tmp_path) == []


@pytest.mark.parametrize(("check", "file", "text", "said"), BROKEN, ids=[b[3] for b in BROKEN])
def test_a_check_can_fail(
    check: Callable[[Path], list[str]], file: str, text: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, ORDERLY)
    write(tmp_path / "src" / "tonsor", {file: text})
    assert said in "\n".join(check(tmp_path))


def test_every_check_has_a_case_that_fails() -> None:
    assert {case[0] for case in BROKEN} == set(CHECKS)
