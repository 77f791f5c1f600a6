"""The wheel: with kernels where there is a compiler, and pure where there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.standin import SOURCE, Home, needs_compiler, script
from tonsor.kernels.build import is_whole, library_name
from tonsor.kernels.source import LEVELS, is_x86

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the hook without the tool that runs it."""

    class Base:
        root = str(ROOT)

        def __init__(self) -> None:
            self.said: list[str] = []
            self.app = types.SimpleNamespace(display_warning=self.said.append)

    name = "hatchling.builders.hooks.plugin.interface"
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), types.ModuleType("stub"))
    sys.modules[name].BuildHookInterface = Base  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.KernelsHook()
    yield made
    made.finalize("standard", {}, "")


def given() -> dict[str, Any]:
    return {"force_include": {}, "pure_python": True}


@needs_compiler
def test_a_wheel_holds_all_levels_and_says_for_which_system(home: Home, hook: Any) -> None:
    data = given()
    hook.initialize("standard", data)
    levels = ("v3", "v4") if is_x86() else ("base",)
    assert list(data["force_include"].values()) == [
        f"tonsor/kernels/lib/{library_name(level)}" for level in levels
    ]
    assert all(is_whole(Path(path)) for path in data["force_include"])
    assert data["pure_python"] is False
    assert data["tag"].startswith("py3-none-linux_")
    hook.finalize("standard", data, "")
    assert not any(Path(path).exists() for path in data["force_include"])
    assert hook.said == []
    assert home.libraries() == []


@needs_compiler
def test_it_asks_for_no_newer_system_than_torch(home: Home, hook: Any) -> None:
    home.write(SOURCE + "#include <cstdlib>\nextern \"C\" int f() { static thread_local struct S { "
               "void *p = malloc(9); ~S() { free(p); } } s; return s.p != 0; }\n")  # fmt: skip
    data = given()
    hook.initialize("standard", data)
    for path in data["force_include"]:
        text = Path(path).read_bytes()
        asked = [part.split(b"\0")[0] for part in text.split(b"GLIBC_2.")[1:]]
        assert asked
        assert max(float(version) for version in asked) < 28, asked


def test_an_editable_install_compiles_nothing(home: Home, hook: Any) -> None:
    data = given()
    hook.initialize("editable", data)
    assert (data, hook.said) == (given(), [])


@pytest.mark.parametrize("cause", ["no compiler", "broken", "off", "system"])
def test_without_kernels_the_wheel_stays_pure_and_the_build_says_why(
    home: Home, hook: Any, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cause == "no compiler":
        monkeypatch.setenv("PATH", str(home.temporary))
    elif cause == "broken":
        monkeypatch.setenv("CXX", str(script(home.temporary / "cxx", "exit 1")))
    elif cause == "off":
        monkeypatch.setenv("TONSOR_KERNELS", "off")
    else:
        monkeypatch.setattr(sys, "platform", "darwin")
    data = given()
    hook.initialize("standard", data)
    assert data == given()
    (said,) = hook.said
    expected = {
        "no compiler": "install g++",
        "broken": "does not work",
        "off": "TONSOR_KERNELS=off",
        "system": "this is darwin",
    }
    assert "without compiled kernels" in said
    assert expected[cause] in said


LOOK = """
import json, tonsor
from tonsor.kernels import library
state = library.state()
print(json.dumps([tonsor.__file__, state.how, state.level, str(state.path)]))
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling, which builds wheels"
)
@pytest.mark.parametrize("kernels", ["", "off"])
def test_a_wheel_brings_its_kernels(tmp_path: Path, kernels: str) -> None:
    """Build, install into a folder, and ask from there."""
    own = os.environ | {"TONSOR_KERNELS": kernels, "TONSOR_CACHE": str(tmp_path / "cache")}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made, target = tmp_path / "made", tmp_path / "target"
    words = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(made), str(ROOT)]
    subprocess.run([*pip, *words], env=own, check=True)
    (wheel,) = made.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("tonsor/kernels/csrc/") for name in names)
    inside = [name for name in names if name.endswith(".so")]
    assert wheel.name.endswith("-py3-none-any.whl") == (kernels == "off") == (not inside)
    words = ["install", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([*pip, *words], env=own, check=True)
    if kernels == "off":
        return
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=own | {"PYTHONPATH": str(target)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, how, level, path = json.loads(done.stdout)
    assert Path(file).is_relative_to(target)
    assert how == "prebuilt" or level not in (("v3", "v4") if is_x86() else LEVELS)
    assert Path(path).is_relative_to(target if how == "prebuilt" else tmp_path)
