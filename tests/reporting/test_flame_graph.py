"""The flame graph: widths are times, nothing is lost, every name is readable, none is active."""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.reporting.diagnosis_builders import HOSTILE
from utils.reporting.flame_graph import (
    KINDS,
    MIN_SHARE,
    SMALL_FRAMES_COLOUR,
    WIDTH_PX,
    draw_flame_graph,
)
from utils.reporting.html_report import TEMPLATES
from utils.reporting.page import colours

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    "ProfilerStep*;forward;torch/nn/modules/module.py(1782):__call_impl;"
    "nn.Module:_Qwen2_0;aten::mm 600",
    "ProfilerStep*;forward;nn.Module:_Qwen2_0;path/model.py(9):_f 200",
    "ProfilerStep*;forward 100",
    "ProfilerStep*;tokenize 99",
    "ProfilerStep*;tiny0 1",
    "ProfilerStep*;tiny1 1",
    "ProfilerStep*;tiny2 1",
    "no number",
    "",
]
TOTAL_US = 1002


class DrawnBox(NamedTuple):
    left: float
    top: float
    width: float


def draw_boxes(lines: list[str]) -> dict[str, DrawnBox]:
    """The boxes of the picture by the name in their title."""
    svg = draw_flame_graph(lines)
    assert svg is not None
    boxes = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        rectangle = group.find(f"{SVG}rect")
        assert title is not None and title.text
        assert rectangle is not None
        name = title.text.rpartition(": ")[0]
        left, top, width = (float(rectangle.attrib[key]) for key in ("x", "y", "width"))
        boxes[name] = DrawnBox(left, top, width)
    return boxes


def test_widths_are_shares_of_the_time() -> None:
    shares = {name: box.width / WIDTH_PX for name, box in draw_boxes(LINES).items()}
    expected = {
        "ProfilerStep*": 1.0,
        "forward": 900 / TOTAL_US,
        "tokenize": 99 / TOTAL_US,
        "nn.Module:_Qwen2_0": 800 / TOTAL_US,
        "aten::mm": 600 / TOTAL_US,
        "path/model.py(9):_f": 200 / TOTAL_US,
        "(3 smaller)": 3 / TOTAL_US,
    }
    assert shares == pytest.approx(expected, abs=0.001)
    assert MIN_SHARE > 1 / TOTAL_US, "each of the three alone is too small to draw"


def test_a_callee_lies_below_its_caller_and_beside_its_siblings() -> None:
    boxes = draw_boxes(LINES)
    callee = boxes["path/model.py(9):_f"]
    assert callee.left == pytest.approx(WIDTH_PX * 600 / TOTAL_US, abs=0.01)
    assert callee.top == boxes["aten::mm"].top
    assert callee.top > boxes["nn.Module:_Qwen2_0"].top


def test_names_are_short_in_the_box_and_complete_on_hover() -> None:
    svg = draw_flame_graph(LINES)
    assert svg is not None
    assert "path/model.py(9):_f: 0.200 ms, 20.0%</title>" in svg
    assert ">model.py(9):_f</text>" in svg
    assert ">Qwen2_0</text>" in svg
    assert "(3 smaller)</text>" not in svg, "there is no room for letters"


def test_hostile_names_are_escaped() -> None:
    svg = draw_flame_graph([f"{HOSTILE};\x00\x1b[31m 5"])
    assert svg is not None
    assert "<script" not in svg
    assert not re.search(r"[\x00-\x08\x0e-\x1f]", svg)
    ElementTree.fromstring(svg)


@pytest.mark.parametrize("lines", [[], ["a;b"]])
def test_without_stacks_there_is_no_flame_graph(lines: list[str]) -> None:
    assert draw_flame_graph(lines) is None


def test_no_colour_has_another_meaning_in_the_pictures_of_the_page() -> None:
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    of_page = set(re.findall(r"#[0-9a-f]{6}", style)) | set(colours.VARIABLES)
    of_graph = {kind.colour for kind in KINDS} | {SMALL_FRAMES_COLOUR}
    assert len(of_graph) == len(KINDS) + 1
    assert not of_graph & of_page
