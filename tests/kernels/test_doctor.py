"""`tonsor doctor`: what it tells of the kernels, and what it does about them."""

from __future__ import annotations

import pytest
import torch

from tests.commands import answer, refusal
from tests.kernels.standin import Home, needs_compiler, script
from tonsor.cli import doctor, main
from tonsor.kernels import library
from tonsor.kernels.compiler import find_compiler
from tonsor.kernels.level import choose_level
from tonsor.kernels.library import KernelWarning


@needs_compiler
def test_it_compiles_only_when_told(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "doctor")
    assert home.libraries() == []
    assert said["kernels"]["how"] == "none"
    assert "`tonsor doctor --build`" in said["kernels"]["why"]
    assert said["compiler"].endswith(f"({find_compiler().version})")
    assert said["cache"] == str(home.cache)
    assert main(["doctor", "--strict"]) == 1
    assert "none: not compiled yet" in capsys.readouterr().out
    assert main(["doctor", "--build", "--strict"]) == 0
    (made,) = home.libraries()
    out = " ".join(capsys.readouterr().out.split())
    assert f"level {choose_level()}, many threads" in out
    said = answer(capsys, "doctor")
    assert said["kernels"] | {"seconds": 0} == {
        "how": "compiled", "level": choose_level(), "path": str(made), "why": "", "seconds": 0,
        "openmp": True,
    }  # fmt: skip


def test_it_says_what_is_on_this_machine(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "doctor")
    assert said["threads"] == str(torch.get_num_threads())
    assert torch.backends.cpu.get_cpu_capability() in said["processor"]
    assert said["oneDNN"] == ("available" if torch.backends.mkldnn.is_available() else "none")
    assert {"GPU", "triton (optional)", "openvino (optional)", "engine onnxruntime"} <= {*said}
    assert said["works"]


def test_without_a_compiler_it_says_how_to_come_by_one(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(script(home.temporary / "cxx", "exit 5")))
    said = answer(capsys, "doctor")
    assert said["compiler"].startswith("none: ")
    assert said["kernels"]["why"] in said["compiler"]
    assert "install g++" in said["compiler"]
    with pytest.warns(KernelWarning):
        assert main(["doctor", "--build"]) == 0
    assert main(["doctor", "--strict"]) == 1


def test_kernels_that_were_switched_off_are_none(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONSOR_KERNELS", "off")
    assert answer(capsys, "doctor")["kernels"]["why"] == "TONSOR_KERNELS=off"
    assert main(["doctor", "--build", "--strict"]) == 1
    library.forget()
    monkeypatch.setenv("TONSOR_KERNELS", "on")
    assert "is 'on', which is none of off, v4, v3, base" in refusal(capsys, "doctor")


def test_it_cleans(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.cache.mkdir(mode=0o700)
    old = home.cache / "v3-0123456789abcdef-01234567.so"
    old.touch()
    assert answer(capsys, "doctor")["removed"] == []
    assert old.exists()
    assert answer(capsys, "doctor", "--clean")["removed"] == [str(old)]
    assert not old.exists()


def test_pruning_that_does_not_work_is_told(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        message = "no cut today"
        raise RuntimeError(message)

    monkeypatch.setattr(doctor, "inspect", fail)
    assert main(["doctor"]) == 1
    assert "RuntimeError: no cut today" in capsys.readouterr().out


def test_its_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in ("--build", "--clean", "--strict", "TONSOR_KERNELS", "TONSOR_CACHE", "CXX"):
        assert word in said
