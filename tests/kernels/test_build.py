"""Compiling: the key of what is compiled, compilers that fail, and files that are torn."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.standin import Home, greets, script
from tonsor.errors import EngineError
from tonsor.kernels import build, compiler, source
from tonsor.kernels.level import choose_level

REAL = shutil.which("g++") or shutil.which("c++")
needs_compiler = pytest.mark.skipif(REAL is None, reason="needs g++ or c++")
texts = st.dictionaries(
    st.sampled_from(["a.cpp", "b.cpp", "a.h", "b.h"]), st.sampled_from(["", "x", "y", "xy"])
).map(lambda found: {"a.cpp": "", **found})


# ---------------------------------------------------------------- keys


def laid(folder: Path, files: dict[str, str]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=texts, two=texts, levels=st.tuples(*[st.sampled_from(list(source.LEVELS))] * 2))
def test_keys_are_equal_only_if_sources_and_levels_are(
    one: dict[str, str], two: dict[str, str], levels: tuple[str, str], tmp_path: Path
) -> None:
    first = source.source_key(levels[0], laid(tmp_path / "one", one))
    second = source.source_key(levels[1], laid(tmp_path / "two", two))
    assert (first == second) == ((one, levels[0]) == (two, levels[1]))


def test_the_name_of_a_library_tells_compilers_apart(home: Home) -> None:
    made = [compiler.Compiler(command=("c",), version=version) for version in ("1", "2", "1")]
    names = [build.library_name("base", one) for one in made]
    assert names[0] == names[2] != names[1]
    bare = build.library_name("base").removesuffix(".so")
    assert all(name.startswith(f"{bare}-") for name in names)


def test_an_installation_without_sources_is_refused(home: Home) -> None:
    (home.sources / "one.cpp").unlink()
    with pytest.raises(EngineError, match=r"no sources of the kernels .*install tonsor anew"):
        source.source_key("base")


def test_the_kernels_that_are_delivered_speak_the_version_that_is_asked_for() -> None:
    text = "".join(path.read_text() for path in source.source_files() if path.suffix == ".cpp")
    assert f"tonsor_abi(void) {{ return {source.ABI}; }}" in text


# ---------------------------------------------------------------- compiling


@needs_compiler
@pytest.mark.parametrize("tuned", [True, False])
def test_what_is_built_is_whole_and_names_no_openmp_of_its_own(
    home: Home, tmp_path: Path, tuned: bool
) -> None:
    level, target = choose_level(), tmp_path / "made.so"
    build.build(level, compiler.find_compiler(), target, tuned=tuned)
    assert build.is_whole(target)
    assert b"libgomp" not in target.read_bytes()
    assert build.uses_openmp(target)
    loaded = ctypes.CDLL(str(target))
    loaded.tonsor_level.restype = ctypes.c_char_p
    assert loaded.tonsor_level() == level.encode()
    assert loaded.tonsor_threads(2) == 2
    assert target.stat().st_mode & 0o022 == 0
    assert [p.name for p in tmp_path.glob("*build*")] == []


@needs_compiler
def test_without_openmp_there_is_one_thread(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = 'for w in "$@"; do [ "$w" = -fopenmp ] && echo "error: no openmp" && exit 1; done'
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", f'{refuses}\nexec {REAL} "$@"')))
    target = tmp_path / "made.so"
    build.build(choose_level(), compiler.find_compiler(), target)
    assert not build.uses_openmp(target)
    assert ctypes.CDLL(str(target)).tonsor_threads(2) == 1


def test_clang_is_not_asked_for_openmp(home: Home, tmp_path: Path) -> None:
    said = tmp_path / "said"
    fake = script(tmp_path / "cxx", f'echo "$@" >> {said}; exit 1')
    clang = compiler.Compiler(command=(str(fake),), version="Debian clang version 14.0.6")
    with pytest.raises(EngineError):
        build.build("base", clang, tmp_path / "made.so")
    assert "-fopenmp" not in said.read_text()
    other = compiler.Compiler(command=(str(fake),), version="g++ 12")
    with pytest.raises(EngineError):
        build.build("base", other, tmp_path / "made.so")
    assert "-fopenmp" in said.read_text()


@needs_compiler
def test_a_mistake_in_the_sources_is_told_and_leaves_nothing(home: Home, tmp_path: Path) -> None:
    home.write("int f() { return nothing_of_this_name; }")
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(EngineError, match=r"could not compile .*nothing_of_this_name.*set CXX"):
        build.build("base", compiler.find_compiler(), into / "made.so")
    assert list(into.iterdir()) == []


@needs_compiler
def test_sources_that_change_meanwhile_are_not_kept_under_the_old_key(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = f'echo "//" >> {home.sources / "numbers.h"}; exec {REAL} "$@"'
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", changing)))
    with pytest.raises(EngineError, match="changed while they were compiled; try again"):
        build.build("base", compiler.find_compiler(), tmp_path / "made.so")
    assert not (tmp_path / "made.so").exists()


def test_a_compiler_that_hangs_is_ended_with_its_children(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = greets("sleep 20 >/dev/null 2>&1 & echo $! > " + str(tmp_path / "child") + "\nwait")
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", hangs)))
    monkeypatch.setattr(compiler, "TIMEOUT", 0.5)
    with pytest.raises(EngineError, match=r"was ended after 0 seconds.*doctor --build"):
        build.build("base", compiler.find_compiler(), tmp_path / "made.so")
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or " Z " in child.read_text()  # gone, or only not yet buried


# ---------------------------------------------------------------- which compiler


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("/bin/false", r"'/bin/false' \(from CXX\) does not work: it ended with 1"),
        ("no-such-compiler -O2", "CXX names 'no-such-compiler -O2', which can't be found"),
        ("'unbalanced", "can't be found; correct or unset CXX"),
    ],
)
def test_a_cxx_that_is_none_is_refused(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", words)
    with pytest.raises(EngineError, match=said):
        compiler.find_compiler()


@pytest.mark.parametrize("there", [["c++"], ["c++", "clang++"], ["c++", "clang++", "g++"], []])
def test_the_first_of_the_usual_compilers_is_taken(
    there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in there:
        script(tmp_path / name, f"echo '{name} 1.0'; echo more")
    if there:
        found = compiler.find_compiler()
        assert found.command == (str(tmp_path / there[-1]),)
        assert found.version == f"{there[-1]} 1.0"
    else:
        with pytest.raises(EngineError, match=r"no C\+\+ compiler .*install g\+\+"):
            compiler.find_compiler()


def test_cxx_goes_before_and_may_have_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "mine", 'echo "$@"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "./mine -B 'a b'")
    found = compiler.find_compiler()
    assert found.command == (str(tmp_path / "mine"), "-B", "a b")
    assert found.version == "-B a b --version"


# ---------------------------------------------------------------- torn files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=300), where=st.data())
def test_a_sealed_file_is_whole_until_a_byte_is_lost_or_changed(
    data: bytes, where: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "sealed"
    path.write_bytes(data)
    assert not build.is_whole(path)
    build.seal(path)
    sealed = path.read_bytes()
    assert sealed.startswith(data)
    assert build.is_whole(path)
    place = where.draw(st.integers(0, len(sealed) - 1))
    path.write_bytes(sealed[:place])
    assert not build.is_whole(path)
    flipped = bytearray(sealed)
    flipped[place] ^= where.draw(st.integers(1, 255))
    path.write_bytes(bytes(flipped))
    assert not build.is_whole(path)
