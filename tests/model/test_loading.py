"""Models as people publish them: loaded right, or refused with one message that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tr
from safetensors.torch import load_file, save_file

from tests import builders, small_tokenizers
from tests.model.test_results_are_those_of_single_texts import config_of, evaluate
from utils.core.errors import ModelError
from utils.evaluation.batching import Batching
from utils.model.load_errors import translate_load_errors
from utils.model.location import ModelLocation
from utils.model.padding import configure_padding
from utils.model_utils import (
    check_max_length,
    check_on_texts,
    load_model,
    load_tokenizer_only,
    model_labels,
    model_summary_lines,
)

UNSPLIT = Batching(kind="token_budget", limit=10**6)


def copy_of(source: Path, target: Path, *without: str) -> Path:
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without))


def assert_right(folder: Path, expected: torch.Tensor) -> None:
    """The program's predictions are the judge's."""
    got = evaluate(load_model(config_of(folder)), builders.TEXTS, UNSPLIT)
    assert got.predicted_ids.tolist() == expected.argmax(-1).tolist()


class TestTokenizer:
    def test_without_files(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model", "tokenizer*", "special*")
        for load in (load_model, load_tokenizer_only):
            with pytest.raises(ModelError, match="no tokenizer files") as caught:
                load(config_of(folder))
            assert "--set model.tokenizer=NAME" in str(caught.value)

    def test_with_its_settings_but_without_its_vocabulary(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model", "tokenizer.json")
        with pytest.raises(
            ModelError, match=r"knows \d+ tokens, the model [\d,]+|cannot be loaded"
        ):
            load_tokenizer_only(config_of(folder))

    def test_another_models(self, bert: Path, tmp_path: Path) -> None:
        tiny = tr.PreTrainedTokenizerFast(
            tokenizer_object=tr.AutoTokenizer.from_pretrained(
                bert
            ).backend_tokenizer.__class__.from_str(_small_vocabulary(bert)),
            unk_token="[UNK]",
            pad_token="[PAD]",
        )
        tiny.save_pretrained(tmp_path / "tokenizer")
        with pytest.raises(ModelError, match="empty, incomplete or another model's"):
            load_model(config_of(bert, f"model.tokenizer={tmp_path / 'tokenizer'}"))

    def test_with_an_unused_token_beyond_the_embedding(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        tokenizer = tr.AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["<never_used>"])
        tokenizer.save_pretrained(folder)
        assert_right(folder, builders.judge(bert, builders.TEXTS))

    def test_that_truncates_earlier_by_itself(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        tokenizer = tr.AutoTokenizer.from_pretrained(folder, model_max_length=16)
        tokenizer.save_pretrained(folder)
        lengths = [len(tokenizer(text, truncation=False)["input_ids"]) for text in builders.TEXTS]
        num_longer = sum(length > 16 for length in lengths)
        loaded = load_model(config_of(folder))
        [warning] = check_on_texts(loaded, builders.TEXTS, 64)
        assert f"{num_longer} of {len(lengths)} texts are longer than the 16 tokens" in warning
        assert check_on_texts(loaded, builders.TEXTS, 16) == ()

    def test_of_a_sentencepiece_model_without_the_package(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model", "tokenizer*")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
        (folder / "sentencepiece.bpe.model").write_bytes(
            b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02"
        )
        with pytest.raises(ModelError, match="SentencePiece file") as caught:
            load_tokenizer_only(config_of(folder))
        message = str(caught.value)
        assert "tiktoken" not in message
        assert "pip install sentencepiece protobuf" in message


def _small_vocabulary(folder: Path) -> str:
    """The tokenizer's file with its first 40 entries alone."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    content["model"]["vocab"] = dict(vocabulary[:40])
    return json.dumps(content)


class TestCheckpoint:
    def test_pickled_weights_alone(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model", "model.safetensors")
        torch.save(load_file(bert / "model.safetensors"), folder / "pytorch_model.bin")
        assert_right(folder, builders.judge(bert, builders.TEXTS))
        info = load_model(config_of(folder)).info
        assert info.weights_format == "pytorch_model.bin"
        assert any("pytorch_model.bin" in line for line in model_summary_lines(info))

    def test_pickled_weights_beside_safetensors_that_are_no_models(
        self, bert: Path, tmp_path: Path
    ) -> None:
        folder = copy_of(bert, tmp_path / "model", "model.safetensors")
        torch.save(load_file(bert / "model.safetensors"), folder / "pytorch_model.bin")
        shutil.copy(bert / "model.safetensors", folder / "optimizer.safetensors")
        assert_right(folder, builders.judge(bert, builders.TEXTS))

    def test_weights_under_another_name_are_named(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
        with pytest.raises(
            ModelError, match=r"no model\.safetensors .*it has model\.fp16\.safetensors"
        ):
            load_model(config_of(folder))

    def test_pointer_of_git_lfs(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model", "model.safetensors")
        (folder / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
        )
        with pytest.raises(ModelError, match="pointer of Git LFS") as caught:
            load_model(config_of(folder))
        assert "git lfs pull" in str(caught.value)

    def test_truncated_weights(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            load_model(config_of(folder))
        assert "download or copy it again" in str(caught.value)

    def test_weights_that_are_not_numbers(self, bert: Path, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        folder = copy_of(bert, tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"] = torch.full_like(weights["classifier.weight"], float("nan"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="logits are NaN or infinite"):
            load_model(config_of(folder))

    @pytest.mark.parametrize("names", [None, ["MyOwnClassifier"]])
    def test_architecture_without_a_known_name(
        self, bert: Path, tmp_path: Path, names: Any
    ) -> None:
        folder = copy_of(bert, tmp_path / "model")
        builders.edit_config(folder, lambda config: config.update(architectures=names))
        assert_right(folder, builders.judge(bert, builders.TEXTS))

    def test_custom_class_with_a_layer_that_transformers_lacks(
        self, bert: Path, tmp_path: Path
    ) -> None:
        from safetensors.torch import save_file

        folder = copy_of(bert, tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        weights["extra.weight"] = torch.zeros(2, 2)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        builders.edit_config(
            folder, lambda config: config.update(architectures=["MyOwnClassifier"])
        )
        with pytest.raises(ModelError, match=r"no place for: extra\.weight"):
            load_model(config_of(folder))

    def test_model_of_another_task_with_a_head_of_the_same_name(self, tmp_path: Path) -> None:
        tokenizer = builders.bpe_tokenizer("<s> $A")
        config = tr.Qwen2Config(
            vocab_size=len(tokenizer),
            num_key_value_heads=2,
            pad_token_id=0,
            **builders.SMALL,
            **builders.NAMED,
        )
        tr.Qwen2ForTokenClassification(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="Qwen2ForTokenClassification"):
            load_model(config_of(tmp_path))

    def test_head_with_more_rows_than_labels(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = torch.cat([weights[name]] * 2)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="do not fit its config.json") as caught:
            load_model(config_of(folder))
        assert "classifier.bias is [6] in the checkpoint and [3] by config.json" in str(
            caught.value
        )

    def test_regression_head(self, bert: Path, tmp_path: Path) -> None:
        folder = copy_of(bert, tmp_path / "model")
        builders.edit_config(folder, lambda config: config.update(problem_type="regression"))
        for refuse in (load_model, model_labels):
            with pytest.raises(ModelError, match="regression head"):
                refuse(config_of(folder))

    def test_padding_token_without_an_embedding(self, tmp_path: Path) -> None:
        folder = builders.build_llama(tmp_path, template="<s> $A")
        builders.edit_config(folder, lambda config: config.update(pad_token_id=100_000))
        with pytest.raises(ModelError, match="cannot be loaded: AssertionError: Padding_idx"):
            load_model(config_of(folder))


class TestPositions:
    def test_roberta_has_fewer_than_it_says(self, tmp_path: Path) -> None:
        loaded = load_model(config_of(builders.build_roberta(tmp_path)))
        assert loaded.info.max_position_embeddings == 64
        check_max_length(64, loaded.model)
        with pytest.raises(ModelError, match=r"--set profiling\.max_length=64"):
            check_max_length(65, loaded.model)
        # The advice is right: a text of that length runs.
        classify = evaluate(loaded, [" ".join(small_tokenizers.WORDS * 2)], UNSPLIT)
        assert len(classify.predicted_ids) == 1

    def test_mpt_calls_them_otherwise(self, tmp_path: Path) -> None:
        tokenizer = small_tokenizers.bpe_tokenizer()
        config = tr.MptConfig(
            d_model=32,
            n_heads=2,
            n_layers=1,
            vocab_size=len(tokenizer),
            max_seq_len=32,
            pad_token_id=0,
        )
        model = tr.MptForSequenceClassification(config).eval()
        check_max_length(32, model)
        model(input_ids=torch.ones(1, 32, dtype=torch.long))
        with pytest.raises(RuntimeError):
            model(input_ids=torch.ones(1, 33, dtype=torch.long))
        with pytest.raises(ModelError, match="32 positions"):
            check_max_length(33, model)

    def test_big_bird_above_the_length_of_full_attention(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        tokenizer = builders.bert_tokenizer()
        config = tr.BigBirdConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=256,
            block_size=4,
            num_random_blocks=2,
            pad_token_id=0,
            **builders.SMALL,
            **builders.NAMED,
        )
        model = tr.BigBirdForSequenceClassification(config)
        builders.save(tmp_path, model, tokenizer, model.classifier.out_proj)
        loaded = load_model(config_of(tmp_path))
        check_max_length(36, loaded.model)
        with pytest.raises(
            ModelError, match="above 36 tokens this model computes a text in another way"
        ):
            check_max_length(37, loaded.model)

    def test_xlnet_has_no_limit(self, tmp_path: Path) -> None:
        loaded = load_model(config_of(builders.build_xlnet(tmp_path)))
        assert loaded.info.max_position_embeddings is None
        check_max_length(100_000, loaded.model)


class TestAttention:
    def test_auto_takes_what_the_architecture_has(self, bert: Path, tmp_path: Path) -> None:
        assert load_model(config_of(bert)).info.attn_implementation == "sdpa"
        xlnet = load_model(config_of(builders.build_xlnet(tmp_path)))
        assert xlnet.info.attn_implementation == "eager"
        assert "Attention: eager" in model_summary_lines(xlnet.info)

    def test_a_choice_that_the_architecture_lacks(self, tmp_path: Path) -> None:
        folder = builders.build_xlnet(tmp_path)
        with pytest.raises(
            ModelError, match="XLNetForSequenceClassification has no sdpa attention"
        ) as caught:
            load_model(config_of(folder, "model.attn_implementation=sdpa"))
        assert "--set model.attn_implementation=auto" in str(caught.value)


def test_a_model_that_returns_tuples_by_its_configuration(bert: Path, tmp_path: Path) -> None:
    folder = copy_of(bert, tmp_path / "model")
    builders.edit_config(folder, lambda config: config.update(return_dict=False))
    assert_right(folder, builders.judge(bert, builders.TEXTS))


class Tuples(torch.nn.Module):
    """Code of a hub's model that returns its logits without a name."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[Any, ...]:
        return (self.inner(input_ids=input_ids, attention_mask=attention_mask).logits,)


def test_code_that_returns_no_logits_by_name(bert: Path) -> None:
    model = Tuples(tr.AutoModelForSequenceClassification.from_pretrained(bert).eval())
    tokenizer = tr.AutoTokenizer.from_pretrained(bert)
    with pytest.raises(ModelError, match="returns no logits by name"):
        configure_padding(model, tokenizer, "float32", "a model")


@pytest.mark.parametrize(
    "advice", ["pip install -U bitsandbytes>=0.46.1", "pip install bitsandbytes"]
)
def test_a_missing_package_is_named_without_pips_options(advice: str) -> None:
    location = ModelLocation(name="org/model")
    with pytest.raises(ModelError) as caught, translate_load_errors("model", location):
        raise ImportError(f"Quantization requires bitsandbytes: `{advice}`")
    assert caught.value.fix == "pip install bitsandbytes"
