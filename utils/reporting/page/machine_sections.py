"""The last sections: the machine, the settings, the files."""

from __future__ import annotations

from utils.reporting.page.blocks import Commands, Facts, Section
from utils.reporting.report_facts import files_facts
from utils.reporting.results import Results
from utils.reporting.run_facts import run_facts, setting_facts


def machine_section(results: Results) -> Section:
    """What was run on what, folded away."""
    return Section(
        id="machine",
        title="Machine, settings and files",
        link="Machine",
        blocks=(
            Commands(commands=(("The command that measured", results.metrics.run.command),)),
            Facts(caption="Run and machine", facts=tuple(run_facts(results)), folded=True),
            Facts(caption="Every setting", facts=tuple(setting_facts(results)), folded=True),
            Facts(
                caption="Where the files lie, beside this page",
                facts=tuple(files_facts(results)),
                folded=True,
            ),
        ),
        measured=("All of it is in baseline_metrics.json, from which a later run is compared.",),
    )
