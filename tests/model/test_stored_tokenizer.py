"""Texts become the tokens that the model's ``tokenizer.json`` gives, or a warning says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests import small_tokenizers, support
from utils.model.stored_tokenizer import FILE_NAME, warn_about_other_tokens
from utils.model_utils import check_on_texts, load_model

TEXTS = ("order 123 please", "no number in it", "4567")
SPECIALS = ["<pad>", "<eos>"]


def own_splitting() -> PreTrainedTokenizerFast:
    """A tokenizer of Qwen2's kind, except that its file keeps the digits of a number together."""
    numbers = ("123 4567 " * 20,)
    core = small_tokenizers.train_byte_bpe((*support.TEXTS, *numbers), 310, SPECIALS)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture
def model_with_own_splitting(tmp_path: Path) -> Path:
    folder = support.build_tiny_model(tmp_path / "model")
    own_splitting().save_pretrained(folder)
    return folder


def num_texts_with_other_tokens(folder: Path) -> int:
    """Counted with the two libraries alone, text by text."""
    stored = Tokenizer.from_file(str(folder / FILE_NAME))
    made = AutoTokenizer.from_pretrained(folder)
    num_other = 0
    for text in TEXTS:
        ids = made(text, add_special_tokens=False)["input_ids"]
        num_other += ids != stored.encode(text, add_special_tokens=False).ids
    return num_other


def test_a_replaced_splitting_is_warned_about(
    tmp_path: Path, model_with_own_splitting: Path
) -> None:
    loaded = load_model(support.small_config(tmp_path, model_with_own_splitting))
    warnings = check_on_texts(loaded, TEXTS, 64)
    num_other = num_texts_with_other_tokens(model_with_own_splitting)
    if num_other:
        [warning] = warnings
        assert warning.startswith(f"tokenizer: {num_other} of 3 texts become other tokens")
    else:
        # transformers 5.0 takes the file as it is.
        assert warnings == ()


def test_each_other_text_is_counted(model_with_own_splitting: Path) -> None:
    other = support.build_tokenizer()
    [warning] = warn_about_other_tokens(other, model_with_own_splitting / FILE_NAME, TEXTS)
    # Those with a number of several digits.
    assert warning.startswith("tokenizer: 2 of 3 texts")


def test_the_remedy_of_the_warning_uses_the_file(
    tmp_path: Path, model_with_own_splitting: Path
) -> None:
    own = tmp_path / "tokenizer"
    own_splitting().save_pretrained(own)
    settings = json.loads((own / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (own / "tokenizer_config.json").write_text(json.dumps(settings))
    config = support.small_config(tmp_path, model_with_own_splitting, f"model.tokenizer={own}")
    loaded = load_model(config)
    assert check_on_texts(loaded, TEXTS, 64) == ()
    stored = Tokenizer.from_file(str(own / FILE_NAME))
    for text in TEXTS:
        assert loaded.tokenizer(text)["input_ids"] == stored.encode(text).ids


def test_without_a_difference_nothing_is_said(tmp_path: Path, tiny_model: Path) -> None:
    loaded = load_model(support.small_config(tmp_path, tiny_model))
    assert loaded.tokenizer_file == tiny_model / FILE_NAME
    assert check_on_texts(loaded, TEXTS, 64) == ()
