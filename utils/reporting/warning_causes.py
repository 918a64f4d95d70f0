"""What each kind of warning means for the reader, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from utils.schema.warning_codes import WarningCode, code_of

MORE_RUNS = (
    "Measure again while nothing else runs, or with more runs: "
    "--set profiling.num_measurement_runs=30"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """A kind of warning.

    Args:
        code: what warnings of this kind begin with; None for all that have no other kind.
        pattern: how such warnings begin in files of earlier versions, which have no codes, as a
            regular expression.
        short: the same in a few words, for a card.
        serious: whether numbers may be wrong or misleading because of it.
    """

    code: WarningCode | None
    title: str
    pattern: str
    short: str
    fix: str
    serious: bool = True

    def matches(self, message: str) -> bool:
        """Whether a warning without a code is of this kind."""
        return re.match(self.pattern, message, re.IGNORECASE) is not None


# Of a warning without a code, the first that matches decides. Serious ones first, in the order in
# which they matter.
CAUSES = (
    Cause(
        code=WarningCode.OUTPUTS,
        title="Outputs changed",
        pattern=r"outputs:|texts get other results|wrong",
        short="outputs differ between runs or batches",
        fix="Compare with --set model.dtype=float32 before you rely on speed or accuracy.",
    ),
    Cause(
        code=WarningCode.VERSION,
        title="A file is of a later version of this program",
        pattern=r".*has schema version",
        short="a file is of a later version",
        fix="Make the report with the version that measured, or measure again with this one.",
    ),
    Cause(
        code=WarningCode.CPU_WAIT,
        title="The machine was busy: threads waited for a CPU",
        pattern=r"CPU starved|forward times follow",
        short="threads waited for a CPU",
        fix=(
            "Stop other programs or use a quieter machine. With more threads than cores, set "
            "OMP_NUM_THREADS to the free cores."
        ),
    ),
    Cause(
        code=WarningCode.SHARED,
        title="The GPU was shared with another process",
        pattern=r"shared:",
        short="another process used the GPU",
        fix="Measure again on a GPU that no other process uses (nvidia-smi shows them).",
    ),
    Cause(
        code=WarningCode.THROTTLED,
        title="The GPU slowed itself down",
        pattern=r"throttled:",
        short="the GPU was throttled",
        fix="Check cooling and power supply: nvidia-smi -q -d PERFORMANCE",
    ),
    Cause(
        code=WarningCode.SPREAD,
        title="Runs of the same batch size differ widely",
        pattern=r"spread:|windows:|outliers:",
        short="runs differ widely",
        fix=MORE_RUNS,
    ),
    Cause(
        code=WarningCode.DRIFT,
        title="Times drift during the measurement",
        pattern=r"drift:",
        short="times drift",
        fix="Let the machine reach its temperature: --set profiling.num_warmup_runs=10",
    ),
    Cause(
        code=WarningCode.FEW_RUNS,
        title="Too few or too short runs",
        pattern=r"too few runs|too short to time",
        short="too few or too short runs",
        fix="Take more runs (profiling.num_measurement_runs) or texts (dataset.sample_sizes).",
    ),
    Cause(
        code=WarningCode.MEMORY,
        title="Out of memory",
        pattern=r"out of memory|memory ran out|.*does not fit into memory|.*not tried",
        short="some batch sizes do not fit into memory",
        fix="Leave those batch sizes out, or save memory: --set model.dtype=bfloat16",
        serious=False,
    ),
    Cause(
        code=WarningCode.DIAGNOSIS,
        title="The diagnosis is missing or belongs to another run",
        pattern=r"missing .*|.*run step 03 again",
        short="the diagnosis is missing or of another run",
        fix="Run step 03 with the same --config: python scripts/03_detailed_profiling.py",
    ),
    Cause(
        code=WarningCode.COMPARISON,
        title="The compared runs",
        pattern=r"the runs of the (baseline|candidate) differ|run \S+ is on both sides",
        short="the compared runs are not of one kind",
        fix="Measure both sides in turn with scripts/06_measure_change.py.",
    ),
    Cause(
        code=WarningCode.LABELS,
        title="Labels",
        pattern=r".*(have no label|label that the model)",
        short="rows are left out of the accuracy",
        fix="Check the labels of the data set (docs/DATA.md), or name them in dataset.label_map.",
    ),
    Cause(
        code=WarningCode.TEXTS,
        title="Texts that the model or its tokenizer does not suit",
        pattern=r".*(hold the model's end token|unknown to the tokenizer)",
        short="some texts do not suit the model",
        fix="Check that the data set is in the language that the model was trained on.",
        serious=False,
    ),
    Cause(
        code=WarningCode.TOKENIZER,
        title="Other tokens than the model's tokenizer.json gives",
        pattern=r".*become other tokens than the model's tokenizer.json",
        short="texts become other tokens than the model's tokenizer.json gives",
        fix="Find out which of the two the model was trained with; the warning says how to use the "
        "file as it is.",
        serious=True,
    ),
    Cause(
        code=WarningCode.DATA,
        title="The data set",
        pattern=r".*(lone surrogates|texts are empty or missing)",
        short="something in the data set needs a look",
        fix="Look at the rows that are named, and check all: python scripts/validate_dataset.py",
    ),
    Cause(
        code=WarningCode.SAMPLE,
        title="Values depend on the sample",
        pattern=r".*depend on the sample|dataset\.sample_sizes|.*dataset\.sample_sizes has no",
        short="values depend on the sample",
        fix="Take a larger sample: dataset.sample_sizes",
        serious=False,
    ),
    Cause(
        code=WarningCode.INTERVAL,
        title="Intervals are wide, or of one process alone",
        pattern=r"ci95:|throughput_samples_per_sec_ci95",
        short="the interval is wide or of this process alone",
        fix="docs/MEASURING.md explains how intervals are measured.",
        serious=False,
    ),
    Cause(
        code=WarningCode.PHASES,
        title="Time between the phases",
        pattern=r"phases:",
        short="the phases do not add up to the time of a batch",
        fix="docs/MEASURING.md explains how phases are measured.",
        serious=False,
    ),
    Cause(
        code=WarningCode.GPU_READINGS,
        title="Readings of the GPU",
        pattern=r"no GPU readings|GPU sampling|power cap|the runs back to back",
        short="readings of the GPU are limited",
        fix="docs/MEASURING.md explains what NVML reads and when.",
        serious=False,
    ),
    Cause(
        code=WarningCode.RESUMED,
        title="Taken over from an interrupted run",
        pattern=r"resumed:|.*by an earlier run",
        short="parts are of an earlier run",
        fix="For one uninterrupted measurement, run again without --resume.",
        serious=False,
    ),
    Cause(
        code=WarningCode.FORECAST,
        title="What other batches would save is not known",
        pattern=r"batches of too few different shapes",
        short="savings of other batches are not known",
        fix="Run step 03 again on a quiet machine, with the same --config: "
        "python scripts/03_detailed_profiling.py",
        serious=False,
    ),
    Cause(
        code=WarningCode.OPERATORS,
        title="Operators whose arithmetic is not counted",
        pattern=r"no FLOP formula",
        short="the arithmetic of some operators is not counted",
        fix="Read the verdict with care: of these operators only the bytes count.",
        serious=False,
    ),
    Cause(
        code=WarningCode.TRACE,
        title="The trace",
        pattern=r"(the )?trac(e|ing)|ceilings:|.*profiler",
        short="the trace is incomplete or slow",
        fix="Times of the trace are longer than measured ones; compare shares, not milliseconds.",
        serious=False,
    ),
)
OTHER = Cause(
    code=None,
    title="Other",
    pattern="",
    short="see the warnings",
    fix="docs/TROUBLESHOOTING.md says more about the common ones.",
    serious=False,
)


BY_CODE = {cause.code: cause for cause in CAUSES}


def cause_of(message: str) -> Cause:
    """The kind of a warning, which its code says; without one, how it begins."""
    code = code_of(message)
    if code is not None:
        return BY_CODE[code]
    return next((cause for cause in CAUSES if cause.matches(message)), OTHER)
