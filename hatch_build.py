"""Compiles the kernels into a wheel, if the machine that builds it has a compiler.

Without one the wheel is pure Python, and the kernels are compiled where it is used. So they are
after an editable install, whose sources change.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface  # pyright: ignore[reportMissingImports]

_INSIDE = "tonsor/kernels/lib"


class KernelsHook(BuildHookInterface):
    """Adds compiled kernels to a wheel, and tags it for the system they run on."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile every level that this kind of processor may have."""
        if version == "editable":
            return
        self.folder = tempfile.TemporaryDirectory(prefix="tonsor-wheel-")
        made, why = compile_all(Path(self.root), Path(self.folder.name))
        if not made:
            self.app.display_warning(f"a wheel without compiled kernels: {why}")
            return
        for path in made:
            build_data["force_include"][str(path)] = f"{_INSIDE}/{path.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what has been copied into the wheel."""
        if hasattr(self, "folder"):
            self.folder.cleanup()


def compile_all(root: Path, into: Path) -> tuple[list[Path], str]:
    """Compile the kernels for all levels, or say why there are none."""
    sys.path.insert(0, str(root / "src"))  # not installed yet, but these parts need nothing
    try:
        from tonsor.errors import TonsorError
        from tonsor.kernels.build import build, library_name
        from tonsor.kernels.compiler import find_compiler
        from tonsor.kernels.source import check_system, is_x86
    finally:
        sys.path.remove(str(root / "src"))
    if os.environ.get("TONSOR_KERNELS", "").strip().lower() == "off":
        return [], "TONSOR_KERNELS=off"
    made = []
    try:
        check_system()
        compiler = find_compiler()
        for level in ("v3", "v4") if is_x86() else ("base",):
            path = into / library_name(level)
            build(level, compiler, path, tuned=False)
            made.append(path)
    except TonsorError as error:
        return [], str(error)
    return made, ""


def platform_tag() -> str:
    """Name the system that the kernels run on, as wheels do."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
