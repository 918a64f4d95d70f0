"""The reports of a real run on a machine that was too busy: they say so first.

``noisy_run`` has the files of a run of the demo on two cores that other programs shared.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.reporting.builders import with_rows
from tests.reporting.conftest import MakeResults
from utils.config_loader import load_config
from utils.reporting.answers import answer_lines
from utils.reporting.html_report import render_page
from utils.reporting.measure_again import measure_again_advice
from utils.reporting.page.cards import NOT_STABLE, six_cards
from utils.reporting.page.headline import headline
from utils.reporting.results import Results, read_results
from utils.reporting.text_report import render_text_report
from utils.schema.warning_codes import WarningCode

STORED = Path(__file__).parent / "noisy_run"
BUSY = re.compile(
    r"The machine was too busy: threads waited for a CPU in up to \d+% of their time; "
    r"treat all times as rough\."
)


@pytest.fixture
def noisy(tmp_path: Path) -> Results:
    folder = tmp_path / "results"
    shutil.copytree(STORED, folder)
    return read_results(load_config("configs/demo.yaml", [f"output.results_dir={folder}"]).files)


def test_the_first_sentence_of_every_report_says_so(noisy: Results) -> None:
    page = render_page(noisy)
    first_screen = page[page.index("The result in short") :]
    first_sentence = re.search(r"<p[^>]*>([^<]*)</p>", first_screen)
    assert first_sentence is not None
    assert BUSY.fullmatch(first_sentence[1])
    one_line = " ".join(render_text_report(noisy).split())
    assert BUSY.match(one_line)
    assert BUSY.match(" ".join(answer_lines(noisy)))


COMMAND = "python run_week1.py --config configs/demo.yaml --skip-download"


def test_the_first_advice_of_every_report_is_to_measure_again(noisy: Results) -> None:
    page = render_page(noisy)
    alert = page.index("First measure again with this command, while nothing else runs")
    assert alert < page.index(COMMAND) < page.index("Measure again first") < page.index("then try")
    for text in (render_text_report(noisy), "\n".join(answer_lines(noisy))):
        lines = text.splitlines()
        command_line = lines.index(f"      {COMMAND}")
        assert "First measure again" in " ".join(lines[:command_line])
        assert "to try" not in " ".join(lines[:command_line])


def test_a_stable_run_is_not_told_to_measure_again(make_results: MakeResults) -> None:
    assert measure_again_advice(make_results()) is None
    assert "easure again" not in render_text_report(make_results()).partition("Run and machine")[0]


def test_where_runs_are_too_few_more_of_them_are_suggested(make_results: MakeResults) -> None:
    few_runs = WarningCode.FEW_RUNS.warn("there are 3 runs")
    results = with_rows(make_results(), stable=False, cpu_wait_fraction=0.0, warnings=(few_runs,))
    advice = measure_again_advice(results)
    assert advice is not None
    assert advice.text.startswith("First measure again with more runs")
    assert advice.command.endswith("--set profiling.num_measurement_runs=30 --skip-download")


def test_every_time_on_the_first_screen_is_marked(noisy: Results) -> None:
    latency, batch_size, throughput, _, bottleneck, _ = six_cards(noisy)
    for card in (latency, batch_size, throughput):
        assert card.mark.startswith(NOT_STABLE)
    assert bottleneck.mark.startswith("low confidence: ")


def test_what_to_try_is_called_a_rough_estimate(noisy: Results) -> None:
    assert "a rough estimate, because the times are not stable" in headline(noisy)
