"""A flame graph: collapsed stacks in, SVG out. Names are shown on hover; nothing in it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

WIDTH_PX = 1200
ROW_PX = 18
CHARACTER_PX = 6.7
LEGEND_STEP_PX = 190
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
"""An SVG file needs it, an HTML page does not."""
MIN_SHARE = 0.002
"""Frames with a smaller share of the time are drawn as one."""
MIN_LETTERS = 4
"""A box with room for fewer letters stays empty."""
WRAPPER_FRAMES = re.compile(r":__?(wrapped_)?call_impl$|:_inner$|:_wrapper$|^<built-in_")
"""Frames that only pass a call on; their time is their callers'."""
# XML allows no control characters.
UNSAFE_CHARACTERS = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]")
SMALL_FRAMES_COLOUR = "#e8e8e8"


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameKind:
    """What a frame is, by a pattern of its name, with its colour from Paul Tol's light scheme.

    The page's other pictures use none of these colours, so that each keeps one meaning.
    """

    label: str
    pattern: str
    colour: str


# The first pattern that matches decides.
KINDS = (
    FrameKind(label="operator", pattern=r"^\w+::", colour="#77aadd"),
    FrameKind(label="module of the model", pattern=r"^nn\.Module:", colour="#bbcc33"),
    FrameKind(label="Python function", pattern=r"[(<]", colour="#cfd6de"),
    FrameKind(label="phase or named module", pattern="", colour="#eedd88"),
)


@dataclass(slots=True)
class Frame:
    """A function with all that it calls; ``time_us`` counts both."""

    time_us: int = 0
    children: dict[str, Frame] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A frame in the picture, or several small ones together.

    Args:
        start_us: where it begins on the axis of time.
        row: 0 is the legend, 1 the outermost frame.
    """

    name: str
    colour: str
    start_us: float
    time_us: int
    row: int


def draw_flame_graph(lines: Iterable[str]) -> str | None:
    """Draw the stacks of ``stacks.txt`` as SVG, with the outermost frame on top.

    Args:
        lines: ``frame;frame;… microseconds``; other lines are left out.

    Returns:
        None if there are no stacks.
    """
    root = _build_tree(lines)
    if not root.time_us:
        return None
    boxes = list(_boxes(root, 0.0, 1, root.time_us))
    height = ROW_PX * (2 + max(box.row for box in boxes))
    content = [_legend_svg(place, kind) for place, kind in enumerate(KINDS)]
    content += [_box_svg(box, root.time_us) for box in boxes]
    return (
        f'<svg{NAMESPACE} viewBox="0 0 {WIDTH_PX} {height}" font-family="monospace" '
        'font-size="11" role="img" aria-label="Flame graph of the traced steps" '
        f'fill="currentColor">{"".join(content)}</svg>\n'
    )


def _build_tree(lines: Iterable[str]) -> Frame:
    root = Frame()
    for line in lines:
        stack, _, microseconds = line.strip().rpartition(" ")
        if not microseconds.isdigit():
            continue
        time_us = int(microseconds)
        frame = root
        frame.time_us += time_us
        for name in stack.split(";"):
            if not WRAPPER_FRAMES.search(name):
                frame = frame.children.setdefault(name, Frame())
                frame.time_us += time_us
    return root


def _boxes(frame: Frame, start_us: float, row: int, total_us: int) -> Iterator[Box]:
    """Everything below a frame, the longest first; the frames that are too small as one box."""
    longest_first = sorted(frame.children.items(), key=lambda item: -item[1].time_us)
    small: list[Frame] = []
    for name, child in longest_first:
        if child.time_us < MIN_SHARE * total_us:
            small.append(child)
            continue
        yield Box(
            name=name, colour=_colour(name), start_us=start_us, time_us=child.time_us, row=row
        )
        yield from _boxes(child, start_us, row + 1, total_us)
        start_us += child.time_us
    small_us = sum(child.time_us for child in small)
    if small_us >= MIN_SHARE * total_us:
        yield Box(
            name=f"({len(small)} smaller)",
            colour=SMALL_FRAMES_COLOUR,
            start_us=start_us,
            time_us=small_us,
            row=row,
        )


def _colour(name: str) -> str:
    return next(kind.colour for kind in KINDS if re.search(kind.pattern, name))


def _legend_svg(place: int, kind: FrameKind) -> str:
    x = LEGEND_STEP_PX * place
    return (
        f'<rect x="{x}" y="3" width="12" height="12" fill="{kind.colour}"/>'
        f'<text x="{x + 17}" y="13">{kind.label}</text>'
    )


def _box_svg(box: Box, total_us: int) -> str:
    name = UNSAFE_CHARACTERS.sub("?", box.name)
    x = WIDTH_PX * box.start_us / total_us
    y = box.row * ROW_PX
    width = WIDTH_PX * box.time_us / total_us
    title = f"{escape(name)}: {box.time_us / 1e3:,.3f} ms, {box.time_us / total_us:.1%}"
    label = _label(name, width)
    text = ""
    if label:
        text = f'<text x="{x + 3:.1f}" y="{y + 13}" fill="#1c2430">{escape(label)}</text>'
    # The gap between neighbours is part of the width, so a narrow box keeps some of it.
    return (
        f'<g><title>{title}</title><rect x="{x:.2f}" y="{y}" '
        f'width="{max(width - 0.6, 0.4):.2f}" height="{ROW_PX - 1}" rx="1.5" '
        f'fill="{box.colour}"/>{text}</g>'
    )


def _label(name: str, width_px: float) -> str:
    """As much of the name as fits into a box: a function without its folder, a module's class."""
    short = name
    if not name.startswith("<"):
        short = re.sub(r"^.*/", "", name.removeprefix("nn.Module:_"))
    num_letters = int((width_px - 6) / CHARACTER_PX)
    if len(short) <= num_letters:
        return short
    if num_letters < MIN_LETTERS:
        return ""
    return f"{short[: num_letters - 1]}…"
