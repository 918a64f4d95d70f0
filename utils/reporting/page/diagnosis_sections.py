"""The sections about the bottleneck: where the time goes, and what to try."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from utils.core.rounding import round_value
from utils.reporting import diagnosis_facts
from utils.reporting.commands import STEP_03_MISSING
from utils.reporting.diagnosis_tables import confidence_text, time_tables, verdict_table
from utils.reporting.flame_graph import NAMESPACE
from utils.reporting.formatting import not_measured
from utils.reporting.page.blocks import Block, Chart, Facts, Grid, Section, Text, charts_block
from utils.reporting.page.bottleneck_chart import bottleneck_chart
from utils.reporting.page.cards import main_diagnosis
from utils.reporting.page.roofline_chart import roofline_charts
from utils.reporting.page.time_charts import module_charts, operator_chart, phases_chart
from utils.reporting.page.timeline_charts import timeline_charts
from utils.reporting.page.trials import trials_block, tried_settings_table
from utils.reporting.report_facts import padding_facts
from utils.reporting.results import Results
from utils.schema.diagnosis import Diagnosis


def bottleneck_section(results: Results) -> Section:
    """The verdict with the stacked bar of its parts."""
    blocks: list[Block] = []
    if results.diagnosis is not None:
        blocks.append(Text(text=_verdict_text(results, results.diagnosis), strong=True))
    blocks.append(bottleneck_chart(results))
    if results.diagnosis is not None:
        blocks.append(Grid(table=verdict_table(results.diagnosis)))
    blocks.append(
        Facts(
            caption="Padding: tokens computed that no text asked for",
            facts=tuple(padding_facts(results)),
        )
    )
    return Section(
        id="bottleneck",
        title="Main bottleneck",
        link="Bottleneck",
        blocks=tuple(blocks),
        measured=(
            "Step 03 times the batches of the sweep again without the profiler and takes the "
            "fastest repeat of each. FLOPs and bytes of every operator are counted and compared "
            "with the fastest matrix product and the fastest copy that this machine reached. "
            "docs/DIAGNOSIS.md explains each verdict.",
        ),
    )


def _verdict_text(results: Results, diagnosis: Diagnosis) -> str:
    """What limits the best batch size, and where larger ones stop helping."""
    item = main_diagnosis(results, diagnosis)
    if item is None:
        return diagnosis.main_bottleneck
    sentences = [item.sentence]
    confidence = confidence_text(item)
    if confidence:
        sentences.append(confidence)
    if diagnosis.saturation is not None:
        sentences.append(diagnosis.saturation.sentence)
    return " ".join(sentences)


def roofline_section(results: Results) -> Section:
    """Every operator against the ceilings."""
    blocks: list[Block] = [charts_block(roofline_charts(results))]
    measured = ["Times of operators come from a traced run, which is slower than a measured one."]
    if results.diagnosis is not None:
        measured.append(f"The ceilings: {results.diagnosis.ceilings.method}")
    return Section(
        id="roofline",
        title="Roofline",
        link="Roofline",
        blocks=tuple(blocks),
        measured=tuple(measured),
    )


def suggestion_section(results: Results) -> Section:
    """What to try, ranked."""
    return Section(
        id="suggestions",
        title="What to try",
        link="What to try",
        blocks=tuple(_suggestion_blocks(results)),
        measured=(
            "A prediction follows from measured times of what would go away; an upper bound "
            "cannot be more. Measured is what --verify found: each change alone, on the same "
            "texts, in turn with the present settings.",
        ),
    )


def _suggestion_blocks(results: Results) -> Iterator[Block]:
    diagnosis = results.diagnosis
    if diagnosis is None:
        yield Text(text=f"Not measured: {STEP_03_MISSING}")
        return
    trials = trials_block(results)
    if trials is None:
        yield Text(text="The diagnosis has no suggestion that saves at least 1% of a batch.")
    else:
        yield trials
    tried = tried_settings_table(diagnosis)
    if tried is not None:
        yield Grid(table=tried)
    if diagnosis.applied:
        sentences = " ".join(diagnosis.applied)
        yield Text(text=f"Not suggested, because the settings do it already: {sentences}")


def time_section(results: Results, flame_graph: str | None) -> Section:
    """Phases, modules, operators, kernels, flame graph."""
    charts = (phases_chart(results), operator_chart(results), *module_charts(results))
    blocks: list[Block] = [charts_block(charts)]
    blocks += [Grid(table=table, folded=True) for table in time_tables(results)]
    blocks += _kernel_blocks(results)
    blocks.append(_flame_graph(results, flame_graph))
    measured = [
        "Phases are timed in the sweep, on every batch. Modules, operators and the flame graph "
        "come from a trace of a few batches in step 03; tracing makes them slower.",
    ]
    if results.diagnosis is not None:
        ratio = results.diagnosis.tracing_overhead_ratio
        measured.append(
            f"A traced batch took {round_value(ratio).value} times as long as an untraced one."
        )
    return Section(
        id="time",
        title="Where the time goes",
        link="Time",
        blocks=tuple(blocks),
        measured=tuple(measured),
    )


def _kernel_blocks(results: Results) -> Iterator[Block]:
    if results.diagnosis is not None:
        yield Facts(
            caption="Attention in the traced batches",
            facts=tuple(diagnosis_facts.attention_facts(results.diagnosis)),
        )
        yield Facts(
            caption=(
                "What the GPU did in the traced batches, which tracing makes slower. Its idle time "
                "contains tokenising and the time between batches, while the verdict's idle share "
                "is of the forward pass alone"
            ),
            facts=tuple(diagnosis_facts.kernel_facts(results.diagnosis)),
        )


def _flame_graph(results: Results, flame_graph: str | None) -> Chart:
    title = "Flame graph of the traced steps"
    if flame_graph is None:
        reason = "step 03 has recorded no call stacks"
        if results.diagnosis is None:
            reason = STEP_03_MISSING
        return Chart(title=title, missing=not_measured(reason), wide=True)
    return Chart(
        title=title,
        caption=(
            f"Width is {diagnosis_facts.flame_graph_time(results)}, below each frame what it "
            "calls. Point at a frame for its name and time."
        ),
        # It escapes every name itself. An HTML page needs no namespace.
        svg=Markup(flame_graph.replace(NAMESPACE, "", 1)),
        wide=True,
        scrolls=True,
    )


def timeline_section(results: Results) -> Section:
    """The GPU over the run, and the memory of a batch."""
    blocks: list[Block] = [charts_block(timeline_charts(results))]
    if results.diagnosis is not None:
        blocks.append(
            Facts(
                caption="Memory of one forward pass, as PyTorch allocates it",
                facts=tuple(diagnosis_facts.peak_facts(results.diagnosis)),
            )
        )
    return Section(
        id="timeline",
        title="GPU and memory over time",
        link="Timeline",
        blocks=tuple(blocks),
        measured=(
            "A thread reads the GPU's counters (NVML) while the sweep and the evaluation run; "
            "every reading is in gpu_timeline.csv. Memory over a batch comes from the allocations "
            "in the trace of step 03.",
        ),
    )
