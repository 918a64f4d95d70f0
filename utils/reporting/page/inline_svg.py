"""From a figure of matplotlib to SVG that stands in an HTML page.

Text stays text, colours become variables of the style sheet, and values are shown on hover.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import AbstractContextManager
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from utils.reporting.page.colours import STYLE, VARIABLES

LARGEST_SCALE = 1.2
"""A picture shrinks with the screen, and grows to this multiple of its natural width."""
FEW_DECADES = 2.5
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
REFERENCE = re.compile(r"url\(#([^)]+)\)")
FONT = re.compile(r"font: *(?P<size>[\d.]+)px [^;]*|font-family: [^;]*;?")
"""The font of a text; the page decides the family."""
NUMBER = re.compile(r"\d+\.\d{3,}")
DRAWN = ("d", "x", "y", "width", "height", "transform")
"""Attributes with coordinates."""


class Tips:
    """The texts that are shown on hover, by the artist that they belong to."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def add(self, artist: Artist, text: str) -> None:
        """Show ``text`` where the reader points at ``artist``."""
        name = f"tip{len(self._texts)}"
        artist.set_gid(name)
        self._texts[name] = text

    def text_of(self, name: str) -> str | None:
        """The text of the artist with this id; None for an artist without one."""
        return self._texts.get(name)


def new_figure(width_in: float = 6.0, height_in: float = 3.6) -> Figure:
    """An empty figure in the look of the page. Draw into it inside ``picture_style``."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def picture_style() -> AbstractContextManager[None]:
    """The context in which a figure of the page is made and drawn."""
    return mpl.rc_context(STYLE)


def plain_log_ticks(axis: Axis) -> None:
    """Powers of ten as plain numbers: matplotlib's own labels are formulas, which are not drawn."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    # Few powers of ten leave room for ticks between them.
    subs = (1.0,) if decades > FEW_DECADES else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(NullFormatter())


def to_inline_svg(figure: Figure, name: str, label: str, tips: Tips) -> Markup:
    """The figure as an ``svg`` element without a namespace, ready for an HTML page.

    Args:
        name: the beginning of all ids; each picture of a page needs another one.
        label: what the picture shows, for readers who cannot see it.
    """
    buffer = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has fonts for what matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    _drop_style_and_metadata(root)
    referenced = _referenced_ids(root)
    for element in root.iter():
        _rewrite(element, name, referenced, tips)
    width_in, _ = figure.get_size_inches()
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.set("viewBox", view_box)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("style", f"max-width: {LARGEST_SCALE * width_in:g}in")
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    # The serialiser has escaped every text.
    return Markup(text)


def _drop_style_and_metadata(root: ElementTree.Element) -> None:
    """A style element would apply to the whole page."""
    for child in list(root):
        tag = _local_name(child.tag)
        if tag == "metadata" or (tag == "defs" and _has_style(child)):
            root.remove(child)


def _has_style(element: ElementTree.Element) -> bool:
    return any(_local_name(child.tag) == "style" for child in element)


def _referenced_ids(root: ElementTree.Element) -> set[str]:
    """Ids that something in the picture refers to; matplotlib gives one to every group."""
    found = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            found.update(REFERENCE.findall(value))
            if _local_name(key) == "href":
                found.add(value.removeprefix("#"))
    return found


def _rewrite(element: ElementTree.Element, name: str, referenced: set[str], tips: Tips) -> None:
    """Without namespaces, with ids of its own, and with its text on hover."""
    attributes = {}
    for key, value in element.attrib.items():
        attributes[_local_name(key)] = REFERENCE.sub(rf"url(#{name}-\1)", value)
    identifier = attributes.pop("id", "")
    if identifier in referenced:
        attributes["id"] = f"{name}-{identifier}"
    if "href" in attributes:
        attributes["href"] = f"#{name}-{attributes['href'].removeprefix('#')}"
    if "style" in attributes:
        attributes["style"] = _page_style(attributes["style"])
    for key in DRAWN:
        if key in attributes:
            attributes[key] = NUMBER.sub(_two_decimals, attributes[key])
    element.tag = _local_name(element.tag)
    element.attrib.clear()
    element.attrib.update(attributes)
    # Line breaks between elements show nothing; those inside a text would.
    if len(element):
        element.text = None
    element.tail = None
    tip = tips.text_of(identifier)
    if tip is not None:
        title = ElementTree.Element("title")
        title.text = tip
        element.insert(0, title)


def _page_style(style: str) -> str:
    """A style with the page's font and colours."""
    style = FONT.sub(_font_size, style)
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return style


def _font_size(match: re.Match[str]) -> str:
    size = match["size"]
    return "" if size is None else f"font-size: {size}px"


def _two_decimals(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}"


def _local_name(name: str) -> str:
    return name.rpartition("}")[2]
