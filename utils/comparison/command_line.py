"""The flags of a comparison, and the exit code that its gates give."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.comparison.defaults import DEFAULT_MARGIN, GATE_EXAMPLES
from utils.config_loader import Config
from utils.pipeline.cli import GATE_UNDECIDED, GATE_VIOLATED
from utils.schema.comparison import Gate

if TYPE_CHECKING:
    from utils.comparison.compare import ComparisonOptions


def add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every comparison takes."""
    parser.add_argument(
        "--margin",
        type=_fraction,
        default=DEFAULT_MARGIN,
        metavar="SHARE",
        help="largest difference that counts as equivalent, for example 2%% or 0.02 (default: 2%%)",
    )
    _add_gate_flags(parser)
    parser.add_argument(
        "--price",
        type=_price,
        metavar="USD",
        help="price of one GPU per hour on both sides (default: cost.gpu_price_per_hour_usd)",
    )
    parser.add_argument(
        "--candidate-price", type=_price, metavar="USD", help="the candidate's, where it differs"
    )
    parser.add_argument(
        "--show-texts",
        action="store_true",
        help="give the texts of rows whose predicted label changed; left out otherwise",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="show comparisons that are refused as meaningless all the same, marked",
    )
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="what is printed"
    )


def _add_gate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="GATE",
        help=f"end with exit code 3 if the change is such: {GATE_EXAMPLES.replace('%', '%%')}; "
        "@N is one batch size, @evaluation the complete data set; may be given often",
    )
    parser.add_argument(
        "--inconclusive",
        choices=("pass", "fail"),
        help="what a gate that the data cannot decide counts as; without it the exit code is 4",
    )


def read_options(args: argparse.Namespace, config: Config) -> ComparisonOptions:
    """The options of the command line, checked before any result is read or measured.

    Raises:
        UserError: a gate cannot be read.
    """
    # Here, because they import SciPy, which the flags and their help do not need.
    from utils.comparison.compare import ComparisonOptions
    from utils.comparison.costs import GivenPrices
    from utils.comparison.gates import parse_gate

    for gate in args.fail_if:
        parse_gate(gate)
    return ComparisonOptions(
        margin=args.margin,
        force=args.force,
        show_texts=args.show_texts,
        fail_if=tuple(args.fail_if),
        prices=GivenPrices(
            both=args.price,
            candidate=args.candidate_price,
            default=config.cost.gpu_price_per_hour_usd,
        ),
    )


def exit_code(gates: Sequence[Gate], inconclusive: str | None) -> int:
    """0 where no gate is violated, 3 where one is, 4 where the data cannot decide.

    Args:
        inconclusive: ``pass`` or ``fail``: what an undecided gate counts as; None: as itself.
    """
    results = {gate.result for gate in gates}
    if "violated" in results:
        return GATE_VIOLATED
    if "undecided" not in results or inconclusive == "pass":
        return 0
    if inconclusive == "fail":
        return GATE_VIOLATED
    return GATE_UNDECIDED


def _fraction(text: str) -> float:
    """A share as ``2%`` or ``0.02``, above 0 and below 1."""
    is_percent = text.strip().endswith("%")
    value = _number(text.strip().removesuffix("%"))
    share = value / 100 if is_percent else value
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 2% or 0.02")
    return share


def _price(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value
