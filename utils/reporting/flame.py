"""A flame graph: collapsed stacks in, SVG out. Names are read on hover; nothing in it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, CHARACTER = 1200, 18, 6.7
"""Pixels: of the picture, of a row, of a letter."""
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
"""A file of its own needs it, a page does not."""
SMALLEST_SHARE = 0.002
"""Frames with less of the whole time are drawn as one."""
MACHINERY = re.compile(r":__?(wrapped_)?call_impl$|:_inner$|:_wrapper$|^<built-in_")
"""Frames that only pass a call on; their time is their callers'."""
KINDS = (
    ("operator", r"^\w+::", "#56b4e9"),
    ("module of the model", r"^nn\.Module:", "#e69f00"),
    ("Python function", r"[(<]", "#cfd6de"),
    ("phase or named module", "", "#f0e442"),
)
"""Okabe and Ito's colours; the first pattern that a name has decides."""
SMALLER = "#e8e8e8"


@dataclass(slots=True)
class Frame:
    """A function with all that it calls; ``time_us`` counts both."""

    time_us: int = 0
    children: dict[str, Frame] = field(default_factory=dict)


def _tree(lines: Iterable[str]) -> Frame:
    root = Frame()
    for line in lines:
        stack, _, microseconds = line.strip().rpartition(" ")
        if not microseconds.isdigit():
            continue
        here = root
        here.time_us += int(microseconds)
        for name in stack.split(";"):
            if not MACHINERY.search(name):
                here = here.children.setdefault(name, Frame())
                here.time_us += int(microseconds)
    return root


def flame_graph(lines: Iterable[str]) -> str | None:
    """The picture of ``frame;frame;… microseconds`` lines, the outermost frame on top; None without stacks."""
    root = _tree(lines)
    if not root.time_us:
        return None
    boxes = list(_boxes(root, 0.0, 1, root.time_us))
    height = ROW * (2 + max(row for row, _ in boxes))
    legend = "".join(
        f'<rect x="{190 * place}" y="3" width="12" height="12" fill="{colour}"/><text x="{190 * place + 17}" y="13">{kind}</text>'
        for place, (kind, _, colour) in enumerate(KINDS)
    )
    return (
        f'<svg{NAMESPACE} viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11" role="img" '
        f'aria-label="Flame graph of the traced steps" fill="currentColor">{legend}{"".join(box for _, box in boxes)}</svg>\n'
    )


def _boxes(frame: Frame, left_us: float, row: int, whole_us: int) -> Iterator[tuple[int, str]]:
    """Row and SVG of everything below a frame, the longest first; what is too narrow to see in one box."""
    longest_first = sorted(frame.children.items(), key=lambda item: -item[1].time_us)
    large = [item for item in longest_first if item[1].time_us >= SMALLEST_SHARE * whole_us]
    for name, child in large:
        yield row, _box(name, child.time_us, left_us, row, whole_us)
        yield from _boxes(child, left_us, row + 1, whole_us)
        left_us += child.time_us
    rest = longest_first[len(large) :]
    rest_us = sum(child.time_us for _, child in rest)
    if rest_us >= SMALLEST_SHARE * whole_us:
        yield row, _box(f"({len(rest)} smaller)", rest_us, left_us, row, whole_us, SMALLER)


def _box(
    name: str, time_us: int, left_us: float, row: int, whole_us: int, colour: str | None = None
) -> str:
    name = re.sub(
        r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]", "?", name
    )  # XML allows no control characters
    colour = colour or next(colour for _, pattern, colour in KINDS if re.search(pattern, name))
    x, width = WIDTH * left_us / whole_us, WIDTH * time_us / whole_us
    letters = int((width - 6) / CHARACTER)
    short = name if name.startswith("<") else re.sub(r"^.*/", "", name.removeprefix("nn.Module:_"))
    shown = short if len(short) <= letters else f"{short[: letters - 1]}…" if letters > 3 else ""
    text = (
        f'<text x="{x + 3:.1f}" y="{row * ROW + 13}" fill="#1c2430">{escape(shown)}</text>'
        if shown
        else ""
    )
    return (
        f'<g><title>{escape(name)}: {time_us / 1e3:,.3f} ms, {time_us / whole_us:.1%}</title><rect x="{x:.2f}" y="{row * ROW}" '
        f'width="{max(width - 0.6, 0.4):.2f}" height="{ROW - 1}" rx="1.5" fill="{colour}"/>{text}</g>'
    )
