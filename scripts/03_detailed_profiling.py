#!/usr/bin/env python
"""Step 03: profile operators and layers, and say what the bottleneck is."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.data.dataset_settings import DatasetSettings
from utils.pipeline import cli, startup


def make_parser() -> argparse.ArgumentParser:
    example = "python scripts/03_detailed_profiling.py --config configs/demo.yaml --verify"
    parser = cli.make_parser(__doc__ or "", example)
    parser.add_argument("--verify", nargs="*", metavar="KEY=VALUE", help=cli.VERIFY_HELP)
    return parser


if __name__ == "__main__":
    # Before the imports below, which take seconds and read environment variables.
    startup.prepare_process()
    startup.quiet_torch_warnings()
    cli.check_flags(make_parser())

from utils.config_loader import Config
from utils.data.prepared import check_prepared_data
from utils.diagnosis.diagnose import diagnose
from utils.diagnosis.diagnosis_settings import DiagnosisSettings
from utils.diagnosis.verify import check_settings, verify
from utils.model_utils import check_max_length, load_model, model_labels
from utils.pipeline import console, steps
from utils.reporting.diagnosis_lines import suggestion_lines, verified_lines
from utils.reporting.text_layout import PAGE
from utils.schema.warning_codes import sentence_of


def run(config: Config, args: argparse.Namespace) -> None:
    check_settings(DiagnosisSettings.of(config), args.verify or ())
    check_prepared_data(DatasetSettings.of(config), model_labels(config))
    loaded = load_model(config)
    check_max_length(config.profiling.max_length, loaded.model)
    diagnosis = diagnose(loaded, DiagnosisSettings.of(config))
    for warning in diagnosis.warnings:
        console.warn(sentence_of(warning))
    lines = PAGE.wrap(diagnosis.main_bottleneck)
    if diagnosis.noise is not None:
        lines = [*PAGE.wrap(diagnosis.noise), *lines]
    lines += suggestion_lines(diagnosis)
    lines += PAGE.bullets(diagnosis.applied)
    console.block("BOTTLENECK ANALYSIS", lines)
    if args.verify is not None:
        diagnosis = verify(loaded, DiagnosisSettings.of(config), diagnosis, args.verify)
        lines = PAGE.bullets(verified_lines(diagnosis))
        if not args.verify:
            # What was measured has replaced what was predicted.
            lines += PAGE.wrap(diagnosis.main_bottleneck)
        console.block("SUGGESTIONS TRIED", lines)
    console.print_line(f"Details: {config.files.bottlenecks}, {config.files.traces_dir}")
    steps.record_finished(steps.get_step("03"), config)


if __name__ == "__main__":
    raise SystemExit(cli.run_script(make_parser(), run, exclusive=True))
