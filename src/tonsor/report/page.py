"""One HTML file that shows what was found: no script, no network, nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonsor._version import __version__
from tonsor.files import replacing


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs; what stands between backquotes is set as code."""

    paragraphs: Sequence[str]
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; `numbers` says how many of the last columns are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numbers: int = 0
    emphasised: Sequence[int] = ()
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as SVG, and what it says in words."""

    svg: str
    caption: str
    kind: str = "figure"


@dataclass(frozen=True, slots=True)
class Code:
    """Text to be copied."""

    text: str
    kind: str = "code"


@dataclass(frozen=True, slots=True)
class Section:
    """A title and what is under it."""

    title: str
    blocks: Sequence[Text | Table | Figure | Code]


def render(title: str, lead: str, sections: Sequence[Section], conditions: Sequence[str]) -> str:
    """Return the page. `conditions` say how the numbers came about; a page never lacks them."""
    if not conditions:
        message = "a page with numbers says under which conditions they were taken"
        raise ValueError(message)
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title, lead=lead, sections=sections, conditions=conditions, version=__version__
        )
    )


def write(path: Path, page: str) -> None:
    """Write a page in one step, so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(page, "utf-8")


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def code(text: str) -> Markup:
        """Set what stands between backquotes as code, and everything else as it is."""
        parts = str(text).split("`")
        return Markup("").join(
            Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts)
        )

    environment = Environment(
        loader=PackageLoader("tonsor.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = code
    environment.filters["svg"] = Markup
    return environment
