"""The report of a deployed model: a table that fits, and plain data."""

from __future__ import annotations

import json

from tonsor.deploy.report import Conditions, DeployReport, Row

CONDITIONS = Conditions("cpu", "float32", 1, "2.13.0", 1, 9)
ROWS = (
    Row("conv1", "dense 3->64 7x7", 1.0, "bn+relu", (1, 64, 112, 112),
        {"dense": 3.25, "prepacked": 2.5}, "prepacked"),
    Row("a.very.long.name.of.a.layer.that.goes.on", "stripes 1024->2048 3x3", 0.67,
        "bn+add+relu", (1, 2048, 7, 7),
        {"dense": 123.456, "prepacked": 100.0, "torch": 99.0, "kernel/stripes": 12.0,
         "kernel/panels": 14.0}, "kernel/stripes", {"kernel/dots": "it fails (E: no)"}),
    Row("never", "dense 3->3 1x1", 1.0, ""),
)  # fmt: skip


def report(**changes: object) -> DeployReport:
    given = {
        "rows": ROWS, "whole": {"as given": 6.0, "channels_last": 5.0, "deployed": 2.0},
        "ratio": 0.4, "interval": (0.35, 0.45), "returned": "deployed", "any_batch": True,
        "conditions": CONDITIONS, "notes": ("a note " * 30,),
    }  # fmt: skip
    return DeployReport(**(given | changes))  # type: ignore[arg-type]


def test_the_table_is_aligned_and_not_too_wide() -> None:
    lines = str(report()).splitlines()
    assert max(map(len, lines)) <= 100
    head, first, second, never = lines[:4]
    assert head.split() == [
        "layer", "kind", "kept", "output", "fused", "dense", "prepacked", "torch", "kernel", "runs",
        "as",
    ]  # fmt: skip
    for column in ("dense", "prepacked", "kernel"):
        end = head.rindex(column) + len(column) if column != "dense" else head.index(" dense") + 6
        assert second[end - 1].isdigit()
        assert second[end] == " "
    assert first[head.index("kind") :].startswith("dense 3->64 7x7")
    assert "~" in second.split()[0]
    assert second.split()[0].endswith("goes.on")
    assert " 12.00 " in second
    assert " 67% " in second
    assert second.endswith("kernel/stripes")
    assert never.endswith("not reached")


def test_what_was_measured_and_left_out_is_said() -> None:
    text = " ".join(str(report()).split())
    assert "as given 6.00, channels_last 5.00, deployed 2.00" in text
    assert "deployed takes 40.0% of the better other (35.0% to 45.0%)" in text
    assert "returned: deployed, 3.00x as fast as given; any batch" in text
    assert "cpu, float32, batch 1, 1 thread, torch 2.13.0, medians of 9 rounds in turns" in text
    assert "note: a note a note" in text
    assert "'kernel/dots' was left out in a.very.long" in text
    assert "this batch only" in str(report(any_batch=False))


def test_it_can_be_had_as_plain_data() -> None:
    found = json.loads(json.dumps(report().to_dict()))
    assert found["speedup"] == 3
    assert found["conditions"]["threads"] == 1
    assert found["rows"][1]["ms"]["kernel/stripes"] == 12
    assert found["rows"][1]["output"] == [1, 2048, 7, 7]
    assert found["interval"] == [0.35, 0.45]
