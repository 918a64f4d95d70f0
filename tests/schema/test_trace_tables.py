"""The tables of step 03: what is read, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reporting.builders import write_results
from tests.reporting.diagnosis_builders import write_layers, write_operators
from utils.core.errors import UserError
from utils.reporting.commands import STEP_02, STEP_03
from utils.reporting.report import write_report
from utils.reporting.results import read_results
from utils.schema.trace_tables import (
    LayerRow,
    MemoryPoint,
    OperatorRow,
    TraceRow,
    read_trace_tables,
)

EXPECTED_FOLDER = Path(__file__).parents[1] / "golden" / "expected"


def test_an_empty_cell_is_none(tmp_path: Path) -> None:
    tables = read_trace_tables(write_results(tmp_path).files)
    assert tables.operators[0].self_device_ms is None
    assert tables.operators[0].self_host_ms == 90.0
    assert tables.layers[-1].layer_index is None
    assert not tables.has_device_times


def test_a_name_may_look_like_a_missing_value(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    write_operators(files.operators, ["null", "NA", "nan"])
    names = [row.operator for row in read_trace_tables(files).operators]
    assert names == ["null", "NA", "nan"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it has no column operator"),
        ("a\nb,c,d\n", "it has no column operator"),
        ("operator,calls\naten::mm,1\n", "it has no column input_shapes"),
        (
            "operator,calls,input_shapes,self_device_ms,self_host_ms,attainable_ms,share_pct\n"
            "aten::mm,many,[],1,1,1,1\n",
            "calls is 'many'",
        ),
        (
            "operator,calls,input_shapes,self_device_ms,self_host_ms,attainable_ms,share_pct\n"
            "aten::mm,nan,[],1,1,1,1\n",
            "calls is 'nan'",
        ),
    ],
)
def test_a_broken_table_is_refused_with_the_step_that_writes_it(
    tmp_path: Path, text: str, problem: str
) -> None:
    files = write_results(tmp_path).files
    files.operators.write_text(text)
    with pytest.raises(UserError, match=STEP_03) as caught:
        read_trace_tables(files)
    assert problem in str(caught.value)


def test_a_broken_timeline_of_the_gpu_is_made_again_by_step_02(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    files.gpu_timeline.write_text("a\n1\n")
    with pytest.raises(UserError, match=STEP_02):
        read_trace_tables(files)


def test_modules_without_times_are_left_out(tmp_path: Path) -> None:
    files = write_results(tmp_path).files
    write_layers(files.layers, timed=False)
    results = read_results(files)
    written = write_report(results)
    assert results.tables.layers == ()
    assert "modules with the most time" not in files.html_report.read_text()
    assert "layers_time.png" not in [path.name for path in written]


@pytest.mark.parametrize(
    ("table", "row"),
    [("operators.csv", OperatorRow), ("layers.csv", LayerRow), ("memory.csv", MemoryPoint)],
)
def test_rows_read_columns_that_step_03_writes(table: str, row: type[TraceRow]) -> None:
    expected = json.loads((EXPECTED_FOLDER / "columns.json").read_text())
    assert set(row.model_fields) <= set(expected[f"profiler_traces/{table}"])
