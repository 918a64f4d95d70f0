"""The sections about speed: throughput against latency, batch sizes, cost."""

from __future__ import annotations

from collections.abc import Iterator

from utils.core.rounding import round_value
from utils.reporting import roads
from utils.reporting.cost_facts import PRICE_SETTING, cost_facts, price_per_hour_usd
from utils.reporting.formatting import Fact, format_number, format_percent, not_measured
from utils.reporting.latency_facts import latency_target_text, percentile_table
from utils.reporting.page.batch_tables import batch_tables
from utils.reporting.page.blocks import Block, Facts, Grid, Section, Text, charts_block
from utils.reporting.page.speed_charts import latency_target_ms, panel_charts, tradeoff_chart
from utils.reporting.results import Results
from utils.reporting.tables import sample_table
from utils.reporting.target_facts import target_facts
from utils.reporting.warning_groups import missing_metrics

THREADS_OFF = ("", "off", "false", "f", "no", "n", "0")
"""Values of ``TOKENIZERS_PARALLELISM`` with which the library tokenizers uses no threads."""


def speed_section(results: Results) -> Section:
    """Throughput against latency, on both roads."""
    blocks: list[Block] = [tradeoff_chart(results), _roads_facts(results)]
    targets = target_facts(results)
    if targets:
        blocks.append(Facts(caption="Targets for the complete data set", facts=tuple(targets)))
    return Section(
        id="speed",
        title="Throughput against latency",
        link="Speed",
        blocks=tuple(blocks),
        measured=(
            "The batch-size sweep measures fixed batches in file order, as a plain loop or service "
            "would run them. A batch lasts from its texts to its logits on the host: tokenising, "
            "copying, forward. Waiting in a queue is not included.",
            "The optimised evaluation runs the complete data set once, with its texts grouped by "
            "length and tokenised in the background.",
            *_tokenizer_threads_note(results),
        ),
    )


def _tokenizer_threads_note(results: Results) -> Iterator[str]:
    """One sentence where the sweep ran without the tokenizer's own threads."""
    value = results.metrics.environment.variables.get("TOKENIZERS_PARALLELISM")
    if value is not None and value.lower() in THREADS_OFF:
        yield (
            "In the batch-size sweep the tokenizer used no threads of its own "
            "(TOKENIZERS_PARALLELISM=false). Where the model runs on the CPU this is the default, "
            "because they would compete with those of PyTorch."
        )


def _roads_facts(results: Results) -> Facts:
    facts = []
    sweep = roads.sweep_speed(results)
    if sweep is not None and sweep.row is not None:
        rounded = round_value(sweep.samples_per_s, sweep.low, sweep.high)
        interval = f" (95% interval {rounded.interval})" if rounded.interval else ""
        name = f"Batch-size sweep, batch size {sweep.row.batch_size}"
        facts.append(Fact(name, f"{rounded.value} texts/s{interval}"))
    facts.append(Fact("Optimised evaluation", _evaluation_text(results)))
    target_ms = latency_target_ms(results)
    if results.metrics.latency_target is not None:
        facts.append(Fact("Target", latency_target_text(results.metrics.latency_target)))
    elif target_ms is not None:
        facts.append(Fact("Target", f"{format_number(target_ms, 'ms')} a batch"))
    return Facts(caption="The highest throughput of both methods", facts=tuple(facts))


def _evaluation_text(results: Results) -> str:
    evaluation = results.evaluation
    if evaluation is None:
        return not_measured(results.metrics.not_evaluated)
    rate = round_value(evaluation.throughput_samples_per_sec).value
    per_text_ms = format_number(evaluation.latency_per_sample_ms, "ms")
    padding = format_percent(evaluation.padding_fraction)
    return f"{rate} texts/s, {per_text_ms} per text; padding {padding} of the tokens"


def batch_size_section(results: Results) -> Section:
    """Every metric by batch size: as pictures, then as tables."""
    profiling = results.metrics.config["profiling"]
    return Section(
        id="batch-sizes",
        title="Batch sizes",
        link="Batch sizes",
        blocks=tuple(_batch_size_blocks(results)),
        measured=(
            f"Each batch size runs over the same texts, {profiling['num_measurement_runs']} times "
            f"after {profiling['num_warmup_runs']} of warm-up that is not counted; batch sizes "
            "take turns, so that a machine that warms up does not favour one of them.",
            "A row is stable where no rule is violated: spread below 10% of the mean, no drift, "
            "no throttling, no other process, no wait for a CPU. docs/MEASURING.md explains it.",
        ),
    )


def _batch_size_blocks(results: Results) -> Iterator[Block]:
    yield charts_block(panel_charts(results))
    for sweep in results.sweeps:
        for table in batch_tables(sweep):
            yield Grid(table=table)
        yield Grid(table=percentile_table(sweep))
    samples = sample_table(results)
    if samples is not None:
        yield Grid(table=samples)
    missing = missing_metrics(results.sweep)
    if missing:
        facts = [Fact(", ".join(item.names), item.reason) for item in missing]
        yield Facts(caption="Not measured, and why", facts=tuple(facts), folded=True)


def cost_section(results: Results) -> Section:
    """What a million texts cost."""
    return Section(
        id="cost",
        title="Cost",
        link="Cost",
        blocks=(_cost_block(results),),
        measured=(
            "The price of an hour divided by the texts of an hour at the measured throughput. "
            "A machine that waits for work costs the same: this is the lower bound.",
        ),
    )


def _cost_block(results: Results) -> Block:
    price = price_per_hour_usd(results)
    if price is None:
        return Text(
            text=f"Not computed: {PRICE_SETTING} is not set. Set the price of an hour of this "
            f"machine in US dollars, for example --set {PRICE_SETTING}=2.5"
        )
    return Facts(caption=f"At {price:g} USD an hour", facts=tuple(cost_facts(results)))
