"""Loading models: real weights, random ones, adapters, and everything that is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, Qwen2ForCausalLM

from tests import support
from utils.config_loader import Config, load_config
from utils.core.errors import ConfigError, ModelError, UserError
from utils.core.files import PROJECT_ROOT
from utils.model_utils import (
    LoadedModel,
    check_batching,
    check_max_length,
    check_on_texts,
    classify,
    load_model,
    load_model_and_tokenizer,
    model_labels,
    model_summary_lines,
)
from utils.system.device import resolve_device

ARCHITECTURE = PROJECT_ROOT / "configs" / "architectures" / "qwen2.5-0.5b.json"


class RunsCode:
    """An object whose unpickling would run code."""

    has_run = False

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return setattr, (RunsCode, "has_run", True)


def config_of(model: Path | str, *more: str) -> Config:
    return load_config("configs/config.yaml", [f"model.name={model}", "model.device=cpu", *more])


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(config_of(tiny_model))


def test_architecture_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        auto: Any = AutoModelForSequenceClassification  # from_config has no types
        model = auto.from_config(AutoConfig.from_pretrained(ARCHITECTURE))
    assert model.num_parameters() == 494_053_376
    assert model.config.num_labels == 23
    rope = getattr(model.config, "rope_parameters", None) or {"rope_theta": model.config.rope_theta}
    assert rope["rope_theta"] == 1_000_000


def test_loaded_model_is_ready(loaded: LoadedModel, tiny_model: Path) -> None:
    info = loaded.info
    expected = sum(p.numel() for p in loaded.model.parameters())
    assert info.total_params == info.trainable_params == expected
    assert info.non_trainable_params == 0
    assert info.total_size_mb == pytest.approx(expected * 4 / 1e6)
    assert (info.weights, info.dtype, info.device, info.num_labels) == (
        "pretrained",
        "float32",
        "cpu",
        3,
    )
    assert info.revision is None and info.adapter is None and info.name == str(tiny_model)
    assert not loaded.model.training and loaded.model.config.use_cache is False
    assert loaded.tokenizer.padding_side == "right"
    times = info.load_times
    assert 0 < times["tokenizer_s"] + times["weights_s"] + times["to_device_s"] <= times["total_s"]
    assert (
        info.to_dict()["load_time_s"] == info.to_dict()["load_times"]["total_s"] == times["total_s"]
    )


def test_summary_lines_are_the_seeds(loaded: LoadedModel) -> None:
    kind, params, size, attention = model_summary_lines(loaded.info)
    assert attention == "Attention: sdpa"
    assert kind == "Model Type: qwen2"
    assert (
        params
        == f"Total Parameters: {loaded.info.total_params:,} ({loaded.info.total_params / 1e6:.2f}M)"
    )
    assert size == f"Model Size: {loaded.info.total_size_mb:,.2f} MB"


def test_trainable_counts_follow_requires_grad(loaded: LoadedModel) -> None:
    # Nothing of a fresh checkpoint is frozen; loading does not freeze it.
    assert all(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_batching_agrees_in_every_precision(tiny_model: Path, dtype: str) -> None:
    model = load_model(config_of(tiny_model, f"model.dtype={dtype}"))
    assert {p.dtype for p in model.model.parameters()} == {getattr(torch, dtype)}
    labels, difference = check_batching(model, list(support.TEXTS[:8]), 64)
    assert set(labels) <= set(support.LABELS)
    assert 0 <= difference < 0.1


def test_batching_check_finds_ignored_padding(tiny_model: Path) -> None:
    broken = load_model(config_of(tiny_model))
    broken.model.config.pad_token_id = (
        319  # the classifier then reads its answer from a padding position
    )
    with pytest.raises(ModelError, match="other results in a batch than alone"):
        check_batching(broken, list(support.TEXTS[:8]), 64)


def test_python_interface(tiny_model: Path) -> None:
    model, tokenizer = load_model_and_tokenizer(
        str(tiny_model), device="cpu", attn_implementation="eager"
    )
    assert model.config._attn_implementation == "eager"
    assert tokenizer("books")["input_ids"]
    with pytest.raises(ConfigError, match="atn"):
        load_model_and_tokenizer(str(tiny_model), device="cpu", atn="eager")


def test_matmul_precision_is_set(tiny_model: Path) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        load_model(config_of(tiny_model, "model.matmul_precision=high"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is about a machine without CUDA")
def test_device(tiny_model: Path) -> None:
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("mps", "xpu:0", "cuda:-1"):
        with pytest.raises(ModelError, match="Unknown device"):
            resolve_device(name)
    with pytest.raises(ModelError, match="--set model.device=cpu"):
        load_model(config_of(tiny_model, "model.device=cuda:1"))


def test_label_names(tiny_model: Path) -> None:
    labels = model_labels(config_of(tiny_model))
    assert (labels.names, labels.num_labels) == (("books", "games", "music"), 3)
    labels = model_labels(config_of(ARCHITECTURE, "model.load_format=dummy"))
    assert (labels.names, labels.num_labels) == (None, 23)


def test_max_length_over_the_positions(loaded: LoadedModel) -> None:
    check_max_length(512, loaded.model)
    with pytest.raises(ModelError, match=r"--set profiling.max_length=512"):
        check_max_length(513, loaded.model)


def test_tokenizer_without_padding_gets_one(tiny_model: Path, tmp_path: Path) -> None:
    # A folder with a tokenizer alone, because beside a Qwen2 config transformers adds the padding
    # token of that family itself.
    plain = support.build_tokenizer()
    plain.pad_token = None
    plain.save_pretrained(tmp_path / "tokenizer")
    own = load_model(config_of(tiny_model, f"model.tokenizer={tmp_path / 'tokenizer'}"))
    assert (
        own.tokenizer.pad_token_id == own.model.config.pad_token_id == 0
    )  # the one that the model was trained with
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    architecture = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**architecture, "pad_token_id": None}))
    fallback = load_model(config_of(folder, f"model.tokenizer={tmp_path / 'tokenizer'}"))
    assert fallback.model.config.pad_token_id == fallback.tokenizer.pad_token_id
    assert fallback.tokenizer.pad_token_id not in plain.get_vocab().values(), "no text can hold it"
    check_batching(fallback, list(support.TEXTS[:8]), 64)


class TestDummy:
    def test_same_seed_same_weights(self, tiny_model: Path) -> None:
        state = torch.random.get_rng_state()
        first, again, other = (
            load_model(
                config_of(
                    tiny_model,
                    "model.load_format=dummy",
                    f"model.seed={seed}",
                    "model.dtype=bfloat16",
                )
            )
            for seed in (1, 1, 2)
        )
        assert torch.equal(state, torch.random.get_rng_state())
        assert first.info.weights == "dummy"
        assert {p.dtype for p in first.model.parameters()} == {torch.bfloat16}
        weights = [model.model.state_dict() for model in (first, again, other)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert not torch.equal(weights[0]["score.weight"], weights[2]["score.weight"])

    def test_architecture_file_takes_the_named_tokenizer(self, tiny_model: Path) -> None:
        architecture = tiny_model / "config.json"
        model = load_model(
            config_of(architecture, "model.load_format=dummy", f"model.tokenizer={tiny_model}")
        )
        assert model.info.num_labels == 3
        check_batching(model, list(support.TEXTS[:4]), 64)

    def test_architecture_file_takes_the_embedded_tokenizer(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        words = [
            str(tiny_model / "config.json"),
            "model.load_format=dummy",
            f"embedded.dir={tmp_path}",
        ]
        with pytest.raises(ModelError, match=r"scripts/build_demo_assets\.py"):
            load_model(config_of(*words))
        shutil.copytree(tiny_model, tmp_path / "model")
        assert load_model(config_of(*words)).tokenizer.pad_token == "<pad>"

    def test_takes_no_more_memory_than_the_model(self, tiny_model: Path, tmp_path: Path) -> None:
        settings = support.build_model_config(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=8
        )
        settings.save_pretrained(tmp_path)
        code = (
            "import resource, sys\n"
            "from utils.config_loader import load_config\n"
            "from utils.model_utils import load_model\n"
            "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
            "def load(name):\n"
            "    settings = ['model.device=cpu', 'model.load_format=dummy']\n"
            "    settings += ['model.dtype=bfloat16']\n"
            f"    settings += ['model.tokenizer={tiny_model}', f'model.name={{name}}']\n"
            "    return load_model(load_config('configs/config.yaml', settings))\n"
            f"load('{tiny_model}'); before = peak(); model = load('{tmp_path}')\n"
            "print((peak() - before) / (model.info.total_size_mb * 1e6))\n"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
        assert float(done.stdout) < 1.25, (
            done.stdout
        )  # a copy, or float32 first, would be 2 or more


def make_adapter(base: Path, folder: Path) -> Path:
    """A LoRA adapter of ``base`` with random weights, saved with peft."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=4,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
    )
    get_peft_model(model, lora).save_pretrained(str(folder))
    return folder


class TestAdapter:
    def test_merged_equals_unmerged(
        self, tiny_model: Path, tmp_path: Path, loaded: LoadedModel
    ) -> None:
        folder = make_adapter(tiny_model, tmp_path / "adapter")
        merged = load_model(config_of(folder))
        assert merged.info.adapter == str(folder) and merged.info.name == str(tiny_model)
        assert type(merged.model).__name__ == "Qwen2ForSequenceClassification"
        assert merged.info.total_params == loaded.info.total_params
        texts = list(support.TEXTS[:8])
        base = load_model(config_of(tiny_model))
        plain = classify(base, texts, 64)
        peft_model = PeftModel.from_pretrained(base.model, str(folder)).eval()
        batch = base.tokenizer(
            texts, padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        with torch.inference_mode():
            unmerged = peft_model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits
        torch.testing.assert_close(classify(merged, texts, 64), unmerged, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(plain, unmerged, atol=1e-3)

    def test_brings_the_head_that_a_causal_base_lacks(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        base = tmp_path / "base"
        Qwen2ForCausalLM(support.build_model_config()).save_pretrained(base)
        support.build_tokenizer().save_pretrained(base)
        merged = load_model(config_of(make_adapter(base, tmp_path / "adapter")))
        assert merged.info.num_labels == 3
        check_batching(merged, list(support.TEXTS[:4]), 64)

    def test_without_peft(
        self, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = make_adapter(tiny_model, tmp_path / "adapter")
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(ModelError, match="pip install peft"):
            load_model(config_of(folder))

    def test_damaged_description(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = make_adapter(tiny_model, tmp_path / "adapter")
        (folder / "adapter_config.json").write_text("{")
        with pytest.raises(UserError, match="adapter_config.json is not valid JSON"):
            load_model(config_of(folder))

    def test_without_safetensors(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = make_adapter(tiny_model, tmp_path / "adapter")
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(ModelError, match="adapter has no weights"):
            load_model(config_of(folder))


class TestRefusals:
    def test_no_such_folder(self) -> None:
        with pytest.raises(ModelError, match="No such model folder"):
            load_model(config_of("./no/such/folder"))

    def test_embedded_not_built(self, tmp_path: Path) -> None:
        command = r"python scripts/build_demo_assets\.py"
        with pytest.raises(ModelError, match=command):
            load_model(config_of("embedded", f"embedded.dir={tmp_path}"))

    def test_architecture_file_without_dummy(self) -> None:
        with pytest.raises(ModelError, match="--set model.load_format=dummy"):
            load_model(config_of(ARCHITECTURE))
        with pytest.raises(ModelError, match="No such architecture file"):
            load_model(config_of("configs/architectures/none.json", "model.load_format=dummy"))

    def test_causal_model(self, tmp_path: Path) -> None:
        Qwen2ForCausalLM(support.build_model_config()).save_pretrained(tmp_path)
        support.build_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="no sequence classifier.*Qwen2ForCausalLM"):
            load_model(config_of(tmp_path))

    def test_checkpoint_without_head(self, tmp_path: Path) -> None:
        Qwen2ForCausalLM(support.build_model_config()).save_pretrained(tmp_path)
        support.build_tokenizer().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["architectures"] = ["Qwen2ForSequenceClassification"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=r"lacks score\.weight"):
            load_model(config_of(tmp_path))

    def test_pickled_weights_that_hold_code(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / "model.safetensors").unlink()
        torch.save({"score.weight": RunsCode()}, folder / "pytorch_model.bin")
        with pytest.raises(ModelError, match="contains more than tensors"):
            load_model(config_of(folder))
        assert not RunsCode.has_run

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_damaged_file(self, tiny_model: Path, tmp_path: Path, name: str) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(config_of(folder))

    def test_unknown_model_type(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / "config.json").write_text('{"model_type": "not-known"}')
        with pytest.raises(ModelError, match="cannot be loaded"):
            model_labels(config_of(folder))

    def test_text_with_a_token_beyond_the_embedding(self, tmp_path: Path) -> None:
        small = load_model(config_of(support.build_tiny_model(tmp_path, vocab_size=262)))
        with pytest.raises(ModelError, match=r"with id \d+, but the model has 262 embeddings"):
            check_on_texts(small, support.TEXTS, 64)

    def test_flash_attention_without_its_package(self, tiny_model: Path) -> None:
        with pytest.raises(ModelError, match="--set model.attn_implementation=auto"):
            load_model(config_of(tiny_model, "model.attn_implementation=flash_attention_2"))

    def test_code_in_the_repository_is_not_run(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / "config.json").write_text(
            '{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}'
        )
        (folder / "own.py").write_text("raise SystemExit('this must not run')")
        with pytest.raises(ModelError, match="trust_remote_code=true"):
            model_labels(config_of(folder))
