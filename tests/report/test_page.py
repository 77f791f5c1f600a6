"""A page is one file that any browser shows, whatever the names in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tonsor.report.figures import Point, curves, widths
from tonsor.report.page import Code, Figure, Section, Table, Text, render, write

NASTY = "<script>alert(1)</script> & `a<b`"


def _svg() -> str:
    series = {"l1": [Point(0.5, 0.9, 0.01), Point(0.25, 0.8)], "random": [Point(0.5, 0.7)]}
    return curves(series, x="MACs kept, %", y="accuracy, %", reference=("whole", Point(1, 0.95)))


def _page() -> str:
    blocks = [
        Text([NASTY]),
        Table(("model", "accuracy"), [("whole", "95.1"), (NASTY, "90.0")], numbers=1,
              emphasised=[1], caption=NASTY),
        Figure(_svg(), NASTY),
        Code("tonsor prune <file>"),
    ]  # fmt: skip
    return render("Title", NASTY, [Section("One", blocks)], ["seed 0", "1 thread"])


class _Tags(HTMLParser):
    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_tag_is_closed_and_nothing_is_fetched() -> None:
    tags = _Tags()
    tags.feed(_page())
    assert tags.open == []
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe"}
    for _, attributes in tags.seen:
        for key, value in attributes.items():
            assert key not in ("src", "onload", "onclick")
            if key in ("href", "xlink:href"):
                assert (value or "").startswith("#")
    assert "url(http" not in _page()
    assert "@import" not in _page()


def test_what_comes_from_outside_is_escaped() -> None:
    page = _page()
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 5
    assert "<code>a&lt;b</code>" in page
    assert "tonsor prune &lt;file&gt;" in page


def test_conditions_are_there_and_can_not_be_left_out() -> None:
    assert "<li>seed 0</li>" in _page()
    with pytest.raises(ValueError, match="conditions"):
        render("Title", "", [], [])


def test_numbers_are_set_to_the_right_and_the_best_stands_out() -> None:
    page = _page()
    assert '<td class="number">95.1</td>' in page
    assert re.search(r'<tr class="emphasised">\s*<td>&lt;script', page)


def test_figures_are_the_same_to_the_byte() -> None:
    assert _svg() == _svg()
    assert _svg().startswith("<svg")
    both = {"stem": 64, "body": 128}
    assert widths(both, {"body": 32}) == widths(both, {"body": 32})
    assert widths(both, {"body": 32}) != widths(both, {"body": 64})


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write(path, "one")
    write(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]
