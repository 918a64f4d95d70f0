"""Write the expected files of the golden tests again, when a change of the outside is intended.

    python -m tests.golden.regenerate                     # all files
    python -m tests.golden.regenerate bottlenecks.json    # some of them

Runs the small run once (about half a minute), writes ``tests/golden/expected`` and prints what has
changed in each file. Read ``git diff tests/golden/expected`` before you commit it, and say in the
changelog what changes for users. Three things are not written blindly:

- Types that were widened by hand in ``baseline_metrics.json`` and ``bottlenecks.json`` (for example
  to ``null or number``: this run, on a CPU, cannot show both) are kept where the run agrees with
  them. A new key that is null in this run is written as ``null``: widen it by hand.
- Predictions are written only if transformers alone, one text at a time, gives the same.
- ``dataset.csv`` is the input: change it by hand, or better not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.golden import compare, json_structure, observe
from tests.golden.small_run import (
    EXPECTED_FOLDER,
    SmallRun,
    make_small_run,
    predict_with_transformers,
    read_predictions,
)


def text_of_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def structure_text(run: SmallRun, name: str) -> str:
    """The structure of a JSON file of the run, merged with the committed one."""
    file = EXPECTED_FOLDER / name
    committed = observe.read_json(file) if file.exists() else {}
    actual = json_structure.structure_of(observe.read_json(run.results / name))
    return text_of_json(json_structure.merge(committed, actual))


def predictions_text(run: SmallRun) -> str:
    """The predictions of the run, once transformers alone agrees with them."""
    predictions = read_predictions(run)
    lines = compare.prediction_differences(predict_with_transformers(run.model), predictions)
    if lines:
        head = "Nothing written: transformers alone gives other predictions."
        sys.exit("\n".join([head, *lines]))
    text: str = predictions.to_csv(index=False, float_format="%.7f", lineterminator="\n")
    return text


FROM_THE_RUN: dict[str, Callable[[SmallRun], str]] = {
    "columns.json": lambda run: text_of_json(observe.columns_of_tables(run)),
    "files.txt": lambda run: "\n".join(observe.file_names(run)) + "\n",
    "console.txt": lambda run: "\n".join(observe.console_outline(run.process.stdout)) + "\n",
    "report.txt": lambda run: "\n".join(observe.report_outline(observe.read_report(run))) + "\n",
    "baseline_metrics.json": lambda run: structure_text(run, "baseline_metrics.json"),
    "bottlenecks.json": lambda run: structure_text(run, "bottlenecks.json"),
    "predictions.csv": predictions_text,
}
WITHOUT_A_RUN: dict[str, Callable[[], str]] = {
    "commands.json": lambda: text_of_json(observe.command_lines()),
    "python_interface.json": lambda: text_of_json(observe.python_interface()),
}


def write(name: str, text: str) -> None:
    """Write one expected file and print which of its lines are new or gone."""
    file = EXPECTED_FOLDER / name
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(text, encoding="utf-8")
    lines = compare.list_differences(before.splitlines(), text.splitlines())
    print(f"{name}: {len(lines)} lines differ" if lines else f"{name}: unchanged")
    for line in lines:
        print(f"  {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*FROM_THE_RUN, *WITHOUT_A_RUN]
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(known)}")
    files = parser.parse_args().files or known
    unknown = sorted(set(files) - set(known))
    if unknown:
        parser.error(f"unknown file: {', '.join(unknown)}")
    EXPECTED_FOLDER.mkdir(exist_ok=True)
    if set(files) & set(FROM_THE_RUN):
        with tempfile.TemporaryDirectory() as folder:
            run = make_small_run(Path(folder))
            texts = {name: FROM_THE_RUN[name](run) for name in files if name in FROM_THE_RUN}
        for name, text in texts.items():
            write(name, text)
    for name in files:
        if name in WITHOUT_A_RUN:
            write(name, WITHOUT_A_RUN[name]())


if __name__ == "__main__":
    main()
