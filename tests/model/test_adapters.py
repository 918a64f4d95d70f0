"""Adapters: merged into their base or run unmerged, each as transformers and PEFT alone give it."""

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

from tests import builders
from tests.model.test_results_are_those_of_single_texts import config_of, evaluate
from utils.core.errors import ModelError, UserError
from utils.evaluation.batching import Batching
from utils.model_utils import (
    load_model,
    load_tokenizer_only,
    model_labels,
    model_summary_lines,
)

UNSPLIT = Batching(kind="token_budget", limit=10**6)


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

    def test_with_names_in_a_configuration_of_its_own(self, tmp_path: Path) -> None:
        base = builders.build_bert(tmp_path / "base", id2label=None, label2id=None, num_labels=3)
        settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"])
        save_adapter(base, tmp_path / "adapter", settings)
        config = config_of(tmp_path / "adapter")
        assert model_labels(config).names is None
        names = {"id2label": dict(enumerate(builders.LABELS))}
        (tmp_path / "adapter" / "config.json").write_text(json.dumps(names))
        assert model_labels(config).names == builders.LABELS
        assert load_model(config).model.config.id2label == dict(enumerate(builders.LABELS))
        names = {"id2label": {0: "of", 1: "another task"}}
        (tmp_path / "adapter" / "config.json").write_text(json.dumps(names))
        assert model_labels(config).names is None

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
