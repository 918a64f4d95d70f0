"""The flags of a comparison are read, and what they cannot be is refused."""

from __future__ import annotations

import argparse

import pytest

from utils.comparison.command_line import add_comparison_flags, read_options
from utils.config_loader import load_config
from utils.core.errors import UserError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_comparison_flags(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(("text", "margin"), [("2%", 0.02), ("0.05", 0.05), (" 10 % ", 0.1)])
def test_a_margin_is_a_share(text: str, margin: float) -> None:
    assert parse("--margin", text).margin == pytest.approx(margin)


@pytest.mark.parametrize(
    "words",
    [
        ("--margin", "2"),
        ("--margin", "0"),
        ("--margin", "-1%"),
        ("--margin", "nan"),
        ("--margin", "small"),
        ("--price", "free"),
        ("--price=-1",),
        ("--price", "inf"),
        ("--inconclusive", "maybe"),
        ("--format", "html"),
    ],
)
def test_a_value_that_a_flag_cannot_have_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2


def test_the_price_of_the_settings_is_the_default() -> None:
    config = load_config("configs/demo.yaml", ["cost.gpu_price_per_hour_usd=2.5"])
    prices = read_options(parse("--candidate-price", "3"), config).prices
    assert (prices.both, prices.candidate, prices.default) == (None, 3.0, 2.5)


def test_a_gate_is_checked_before_anything_is_read() -> None:
    with pytest.raises(UserError, match="Cannot read the gate"):
        read_options(parse("--fail-if", "slow"), load_config("configs/demo.yaml"))
