"""The flame graph: widths are times, nothing is lost, every name can be read and none can do harm."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.reporting.fixtures import HOSTILE
from utils.reporting.flame import SMALLEST_SHARE, WIDTH, flame_graph

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    "ProfilerStep*;forward;torch/nn/modules/module.py(1782):__call_impl;nn.Module:_Qwen2_0;aten::mm 600",
    "ProfilerStep*;forward;nn.Module:_Qwen2_0;path/model.py(9):_f 200",
    "ProfilerStep*;forward 100",
    "ProfilerStep*;tokenize 99",
    *(f"ProfilerStep*;tiny{i} 1" for i in range(3)),
    "no number",
    "",
]


def boxes(lines: list[str]) -> dict[str, tuple[float, float, float]]:
    """Left, top and width by the title's name."""
    svg = flame_graph(lines)
    assert svg is not None
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title, rectangle = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and title.text and rectangle is not None
        found[title.text.rpartition(": ")[0]] = tuple(
            float(rectangle.attrib[name]) for name in ("x", "y", "width")
        )
    return found


def test_widths_are_times() -> None:
    found = boxes(LINES)
    shares = {name: width / WIDTH for name, (_, _, width) in found.items()}
    assert shares == pytest.approx(
        {
            "ProfilerStep*": 1.0,
            "forward": 900 / 1002,
            "tokenize": 99 / 1002,
            "nn.Module:_Qwen2_0": 800 / 1002,
            "aten::mm": 600 / 1002,
            "path/model.py(9):_f": 200 / 1002,
            "(3 smaller)": 3 / 1002,
        },
        abs=0.001,
    )
    assert SMALLEST_SHARE > 1 / 1002, "each of the three alone is too small to draw"
    left, top, _ = found["path/model.py(9):_f"]
    assert left == pytest.approx(WIDTH * 600 / 1002, abs=0.01) and top == found["aten::mm"][1]
    assert found["nn.Module:_Qwen2_0"][1] < top, "what is called lies below its caller"


def test_names_are_short_and_whole_on_hover() -> None:
    svg = flame_graph(LINES)
    assert svg and "path/model.py(9):_f: 0.200 ms, 20.0%</title>" in svg
    assert ">model.py(9):_f</text>" in svg and ">Qwen2_0</text>" in svg
    assert "(3 smaller)</text>" not in svg, "no room for letters"


def test_hostile_names_do_nothing() -> None:
    svg = flame_graph([f"{HOSTILE};\x00\x1b[31m 5"])
    assert svg and "<script" not in svg and not re.search(r"[\x00-\x08\x0e-\x1f]", svg)
    ElementTree.fromstring(svg)


def test_no_stacks() -> None:
    assert flame_graph([]) is None and flame_graph(["a;b"]) is None
