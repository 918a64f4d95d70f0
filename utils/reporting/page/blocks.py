"""What a section of the page consists of: each block is one thing that the template can show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup
from matplotlib.figure import Figure

from utils.reporting.formatting import Fact
from utils.reporting.page.inline_svg import Tips, picture_style, to_inline_svg
from utils.reporting.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A picture with its title, or why there is none.

    Args:
        caption: how to read it.
        svg: None where it could not be drawn.
        missing: why it could not be drawn.
        wide: whether it takes the whole width of the page.
        scrolls: whether it keeps its width on a narrow screen, and scrolls there.
    """

    kind: ClassVar[str] = "chart"
    title: str
    caption: str = ""
    svg: Markup | None = None
    missing: str = ""
    wide: bool = False
    scrolls: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Charts:
    """Pictures beside each other where the screen has room."""

    kind: ClassVar[str] = "charts"
    charts: tuple[Chart, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table that can be sorted and copied.

    Args:
        folded: whether it is hidden until the reader opens it.
    """

    kind: ClassVar[str] = "grid"
    table: Table
    folded: bool = False

    @property
    def title(self) -> str:
        """What a reader opens."""
        return self.table.caption


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Names with their values."""

    kind: ClassVar[str] = "facts"
    caption: str
    facts: tuple[Fact, ...]
    folded: bool = False

    @property
    def title(self) -> str:
        """What a reader opens."""
        return self.caption


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Commands:
    """Commands to copy, each with what it does."""

    kind: ClassVar[str] = "commands"
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A suggestion: what it brings, by prediction and by measurement, and how to try it."""

    rank: int
    title: str
    why: str
    advice: str
    predicted: str
    measured: str
    command: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """The suggestions, the largest saving first."""

    kind: ClassVar[str] = "trials"
    caption: str
    trials: tuple[Trial, ...]
    note: str = ""


Block = Chart | Charts | Commands | Grid | Facts | Text | Trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page.

    Args:
        id: its address inside the page.
        link: its name in the list of sections.
        measured: how its values were measured.
    """

    id: str
    title: str
    link: str
    blocks: tuple[Block, ...]
    measured: tuple[str, ...] = ()


def charts_block(charts: Iterable[Chart]) -> Charts:
    """Pictures beside each other; those that are missing for the same reason share one place."""
    drawn = []
    titles_by_reason: dict[str, list[str]] = {}
    for chart in charts:
        if chart.svg is not None:
            drawn.append(chart)
        else:
            titles_by_reason.setdefault(chart.missing, []).append(chart.title)
    for reason, titles in titles_by_reason.items():
        drawn.append(Chart(title=", ".join(titles), missing=reason))
    return Charts(charts=tuple(drawn))


def draw_chart(
    name: str, title: str, caption: str, draw: Callable[[Tips], Figure], *, wide: bool = False
) -> Chart:
    """A chart from the function that draws its figure.

    Args:
        name: the beginning of the ids inside the picture; each of a page needs another one.
        draw: it gets the tips to add the texts to that are shown on hover.
    """
    tips = Tips()
    with picture_style():
        svg = to_inline_svg(draw(tips), name, f"{title}. {caption}", tips)
    return Chart(title=title, caption=caption, svg=svg, wide=wide)
