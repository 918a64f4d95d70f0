"""Models as people publish them: loaded right, or refused with one message that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tr
from safetensors.torch import load_file

from tests import builders, small_tokenizers
from tests.model.test_results_are_those_of_single_texts import config_of, evaluate
from utils.core.errors import ModelError, UserError
from utils.evaluation.batching import Batching
from utils.model_utils import (
    check_max_length,
    load_model,
    load_tokenizer_only,
    model_labels,
    model_summary_lines,
)

UNSPLIT = Batching(kind="token_budget", limit=10**6)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.build_bert(tmp_path_factory.mktemp("bert"))


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


def save_adapter(base: Path, folder: Path, settings: Any, **options: Any) -> Any:
    """A PEFT adapter of ``base``, saved into ``folder``, with the adapted model."""
    torch.manual_seed(3)
    model = tr.AutoModelForSequenceClassification.from_pretrained(base, **options)
    adapted = peft.get_peft_model(model, settings).eval()
    adapted.save_pretrained(str(folder))
    return adapted


@torch.no_grad()
def results_of(model: Any, base: Path) -> torch.Tensor:
    tokenizer = tr.AutoTokenizer.from_pretrained(base)
    rows = []
    for text in builders.TEXTS:
        encoded = tokenizer(
            text, return_tensors="pt", truncation=True, max_length=builders.MAX_LENGTH
        )
        rows.append(
            model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
        )
    return torch.cat(rows)


class TestAdapter:
    @pytest.mark.parametrize(
        "settings",
        [
            peft.PromptEncoderConfig(
                task_type="SEQ_CLS", num_virtual_tokens=5, encoder_hidden_size=32
            ),
            peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5),
        ],
        ids=lambda settings: str(settings.peft_type.value),
    )
    def test_that_cannot_be_merged_is_run_unmerged(
        self, bert: Path, tmp_path: Path, settings: Any
    ) -> None:
        adapted = save_adapter(bert, tmp_path / "adapter", settings)
        loaded = load_model(config_of(tmp_path / "adapter"))
        assert loaded.info.adapter_mode == "unmerged"
        assert any("run unmerged on" in line for line in model_summary_lines(loaded.info))
        assert loaded.info.max_position_embeddings == 128 - 5
        got = evaluate(loaded, builders.TEXTS, UNSPLIT)
        assert got.predicted_ids.tolist() == results_of(adapted, bert).argmax(-1).tolist()

    def test_prefix_tuning_is_right_or_one_message(self, bert: Path, tmp_path: Path) -> None:
        settings = peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
        adapted = save_adapter(bert, tmp_path / "adapter", settings)
        try:
            loaded = load_model(config_of(tmp_path / "adapter"))
        except ModelError as error:
            assert error.fix
            return
        got = evaluate(loaded, builders.TEXTS, UNSPLIT)
        assert got.predicted_ids.tolist() == results_of(adapted, bert).argmax(-1).tolist()

    def test_with_more_labels_than_its_base(self, bert: Path, tmp_path: Path) -> None:
        settings = peft.LoraConfig(
            task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
        )
        adapted = save_adapter(
            bert, tmp_path / "adapter", settings, num_labels=5, ignore_mismatched_sizes=True
        )
        config = config_of(tmp_path / "adapter")
        assert (model_labels(config).names, model_labels(config).num_labels) == (None, 5)
        loaded = load_model(config)
        assert (loaded.info.num_labels, loaded.info.adapter_mode) == (5, "merged")
        got = evaluate(loaded, builders.TEXTS, UNSPLIT)
        assert got.predicted_ids.tolist() == results_of(adapted, bert).argmax(-1).tolist()

    def test_with_a_resized_embedding(self, tmp_path: Path) -> None:
        base = builders.build_llama(tmp_path / "base", template="<s> $A", pad_token_id=0)
        torch.manual_seed(3)
        model = tr.AutoModelForSequenceClassification.from_pretrained(base)
        tokenizer = tr.AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<new>"])
        model.resize_token_embeddings(len(tokenizer))
        settings = peft.LoraConfig(
            task_type="SEQ_CLS",
            r=2,
            target_modules=["q_proj"],
            init_lora_weights=False,
            modules_to_save=["embed_tokens", "score"],
        )
        adapted = peft.get_peft_model(model, settings).eval()
        adapted.save_pretrained(str(tmp_path / "adapter"))
        tokenizer.save_pretrained(tmp_path / "adapter")
        texts = [*builders.TEXTS[:6], "<new> " + builders.TEXTS[7]]
        loaded = load_model(config_of(tmp_path / "adapter"))
        got = evaluate(loaded, texts, UNSPLIT)
        with torch.no_grad():
            expected = [
                int(
                    adapted(
                        input_ids=tokenizer(text, return_tensors="pt")["input_ids"]
                    ).logits.argmax(-1)
                )
                for text in texts
            ]
        assert got.predicted_ids.tolist() == expected

    def test_pickled_weights(self, bert: Path, tmp_path: Path) -> None:
        settings = peft.LoraConfig(
            task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
        )
        adapted = save_adapter(bert, tmp_path / "adapter", settings)
        weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        torch.save(weights, tmp_path / "adapter" / "adapter_model.bin")
        (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
        got = evaluate(load_model(config_of(tmp_path / "adapter")), builders.TEXTS, UNSPLIT)
        assert got.predicted_ids.tolist() == results_of(adapted, bert).argmax(-1).tolist()

    def test_whose_base_lies_on_another_machine(self, bert: Path, tmp_path: Path) -> None:
        settings = peft.LoraConfig(
            task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
        )
        adapted = save_adapter(bert, tmp_path / "adapter", settings)
        file = tmp_path / "adapter" / "adapter_config.json"
        description = json.loads(file.read_text())
        file.write_text(
            json.dumps({**description, "base_model_name_or_path": "/content/drive/my_base"})
        )
        config = config_of(tmp_path / "adapter")
        with pytest.raises(
            UserError, match="base_model_name_or_path is '/content/drive/my_base'"
        ) as caught:
            load_model(config)
        assert "--set model.adapter_base=NAME" in str(caught.value)
        loaded = load_model(config_of(tmp_path / "adapter", f"model.adapter_base={bert}"))
        assert loaded.info.name == str(bert)
        got = evaluate(loaded, builders.TEXTS, UNSPLIT)
        assert got.predicted_ids.tolist() == results_of(adapted, bert).argmax(-1).tolist()

    def test_whose_tokenizer_lacks_its_vocabulary_takes_the_base_models(
        self, bert: Path, tmp_path: Path
    ) -> None:
        settings = peft.LoraConfig(
            task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
        )
        save_adapter(bert, tmp_path / "adapter", settings)
        shutil.copy(bert / "tokenizer_config.json", tmp_path / "adapter")
        tokenizer = load_tokenizer_only(config_of(tmp_path / "adapter"))
        assert (
            tokenizer(builders.TEXTS[0])["input_ids"]
            == tr.AutoTokenizer.from_pretrained(bert)(builders.TEXTS[0])["input_ids"]
        )
