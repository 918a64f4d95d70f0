"""How to read each picture of the page, in sentences below its title."""

from __future__ import annotations

from utils.reporting.formatting import format_number

HOLLOW = "A hollow point is not stable."

TRADEOFF = (
    "Up is more texts a second, left is a faster answer. Each point is a batch size of the sweep; "
    f"the broad line is its 95% interval. {HOLLOW}"
)
THROUGHPUT = f"The broad line is the 95% interval. {HOLLOW}"
TEXT_TIME = f"Median of the runs; the broad line is its 95% interval. {HOLLOW}"
PADDING = "Tokens that are computed although no text has them."
GPU_MEMORY = "What PyTorch had allocated at once, the weights included."
PROCESS_MEMORY = "Resident memory after a run."
GPU_USE = "Time in which a kernel ran: busy, not full."
ENERGY = "Energy of the GPU's board."
ARITHMETIC_RATE = "FLOPs of the forward passes, padding included, over their time."

BOTTLENECK = (
    "Input: tokenising and copying. Compute and memory: the time that the forward would take at "
    "the machine's ceilings, its fastest matrix product and its fastest copy. Overhead: starting "
    "operators, or a GPU that waits. Slower than the ceilings: the rest of the forward. Padding: "
    "its share of compute, memory and that rest."
)
ROOFLINE = (
    "Each circle is an operator with the shapes of its inputs; its area is its time. The line is "
    "the best that this machine reached: left of the bend memory limits an operator, right of it "
    "arithmetic does. The distance to the line is what could be saved at most."
)
COPIES = (
    "Operators without a formula for FLOPs move bytes only. The dashed line is the fastest copy of "
    "a large buffer; small tensors stay in a cache and can be above it."
)

PHASES = "Share of the time of a full batch, from the texts to the logits on the host."
MODULES = "Own time of a forward, without the modules that a module calls."
OPERATORS = (
    "Own time of a batch in the traced run. The solid part is the time at the machine's ceilings, "
    "where it is known; the pale rest is what could be saved at most."
)
GPU_READINGS = (
    "As NVML reads it: utilisation and power describe up to a second before. The dashed line is "
    "the mean over time."
)
MEMORY_OF_BATCH = "What PyTorch has allocated beyond the weights while one traced batch runs."


def token_lengths(max_length: int | None, num_truncated: int | None) -> str:
    """The caption of the lengths.

    Args:
        num_truncated: texts that are longer than ``max_length``.
    """
    caption = "All texts of the data set as the model got them."
    if max_length is not None and num_truncated is not None:
        truncated = format_number(num_truncated)
        caption += f" Longer ones end at max_length = {max_length}: {truncated}."
    return caption


def calibration(error: float | None) -> str:
    """The caption of the calibration.

    Args:
        error: the mean distance of the probability from the share that is right; None where it is
            not known.
    """
    caption = (
        "How often predictions are right, by the probability that the model gives them. On the "
        "dashed line they are right as often as they promise; below it the model is too sure."
    )
    if error is not None:
        caption += f" Mean distance: {100 * error:.1f} points."
    return caption


def confusion(num_shown: int, num_labels: int) -> str:
    """The caption of the confusion of labels, of which a picture has room for some."""
    caption = "Share of a true label's rows (row) that got each prediction (column)."
    if num_labels > num_shown:
        caption += f" The {num_shown} of {num_labels} labels with the most mistakes."
    return caption
