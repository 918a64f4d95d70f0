"""Step 00 for real: on a folder, and on the hub with the default config."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests import support
from tests.hub_server import HubServer, closed_port, hub_env

SCRIPT = "scripts/00_test_model_loading.py"
MODEL = "codefactory4791/intent-classification-qwen"


def flags(folder: Path) -> list[str]:
    """The default config; only the device, the sizes and the results folder are overridden."""
    results = f"output.results_dir={folder / 'results'}"
    return support.set_flags(["model.device=cpu", "profiling.max_length=64", results])


def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return support.run_script(SCRIPT, *words, timeout=300, **environment)


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_model(MODEL, tiny_model)
        yield server


def test_a_model_in_a_folder_is_loaded_and_checked(tmp_path: Path, tiny_model: Path) -> None:
    done = support.run_script(
        SCRIPT,
        *support.set_flags(support.small_overrides(tmp_path, tiny_model)),
        in_new_interpreter=True,
    )
    assert done.returncode == 0, done.stderr
    rule = "=" * 70
    assert f"MODEL SUMMARY\n{rule}\nModel Type: qwen2\nTotal Parameters: " in done.stdout
    assert "One text at a time and a batch agree" in done.stdout
    assert done.stderr == ""


def test_a_model_from_the_hub_loads_again_without_it(tmp_path: Path, hub: HubServer) -> None:
    first = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert first.returncode == 0, first.stderr
    assert f"Revision: {hub.repos['models', MODEL].commit}" in first.stdout
    assert any(path.endswith("model.safetensors") for _, path, _ in hub.requests)
    assert not any(path.endswith(".bin") for _, path, _ in hub.requests)
    with closed_port() as nobody:
        again = run(flags(tmp_path), hub_env(nobody, tmp_path / "cache"))
    assert again.returncode == 0, again.stderr


def save_adapter(base: Path, folder: Path) -> Path:
    """Save an adapter that names the model on the hub as its base; its folder."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    settings = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["q_proj"])
    adapted = get_peft_model(model, settings)
    adapted.peft_config["default"].base_model_name_or_path = MODEL
    adapted.save_pretrained(str(folder))
    return folder


def test_an_adapter_from_the_hub_is_loaded_on_its_base_model(
    tmp_path: Path, hub: HubServer, tiny_model: Path
) -> None:
    hub.add_model("someone/adapter", save_adapter(tiny_model, tmp_path / "adapter"))
    words = [*flags(tmp_path), "--set", "model.name=someone/adapter"]
    done = run(words, hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert f"Revision: {hub.repos['models', MODEL].commit}" in done.stdout
    assert any(path.endswith("adapter_model.safetensors") for _, path, _ in hub.requests)


def requested(hub: HubServer) -> set[str]:
    """Names of the files that were asked for."""
    return {path.rsplit("/", 1)[-1].partition("?")[0] for _, path, _ in hub.requests}


def test_every_tokenizer_file_of_an_adapter_is_fetched(
    tmp_path: Path, hub: HubServer, tiny_model: Path
) -> None:
    folder = save_adapter(tiny_model, tmp_path / "adapter")
    names = ("spiece.model", "vocab.bpe", "merges.txt", "chat_template.jinja", "tekken.json")
    for name in names:
        (folder / name).write_bytes(b"x")
    (folder / "optimizer.pt").write_bytes(b"not for us")
    hub.add_model("someone/adapter", folder)
    done = run(
        [*flags(tmp_path), "--set", "model.name=someone/adapter"], hub.env(tmp_path / "cache")
    )
    assert done.returncode == 0, done.stderr
    assert set(names) <= requested(hub)
    assert "optimizer.pt" not in requested(hub)


def test_a_model_without_tokenizer_files_is_refused(
    tmp_path: Path, hub: HubServer, tiny_model: Path
) -> None:
    folder = shutil.copytree(
        tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*")
    )
    hub.add_model("someone/bare", folder)
    done = run([*flags(tmp_path), "--set", "model.name=someone/bare"], hub.env(tmp_path / "cache"))
    assert done.returncode == 2
    assert "no tokenizer files" in done.stderr
    assert "model.safetensors" not in requested(hub), "it is refused before the weights are fetched"


def test_pickled_weights_are_fetched_only_where_there_are_no_others(
    tmp_path: Path, hub: HubServer, tiny_model: Path
) -> None:
    both = shutil.copytree(tiny_model, tmp_path / "both")
    torch.save(load_file(both / "model.safetensors"), both / "pytorch_model.bin")
    pickled = shutil.copytree(
        both, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors")
    )
    hub.add_model("someone/both", both)
    hub.add_model("someone/pickled", pickled)
    done = run([*flags(tmp_path), "--set", "model.name=someone/both"], hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" not in requested(hub)
    done = run(
        [*flags(tmp_path), "--set", "model.name=someone/pickled"], hub.env(tmp_path / "cache")
    )
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin, read without running code" in done.stdout


def test_without_the_hub_the_message_names_what_is_cached(tmp_path: Path, hub: HubServer) -> None:
    cached = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert cached.returncode == 0, cached.stderr
    with closed_port() as nobody:
        words = [*flags(tmp_path), "--set", "model.name=someone/else"]
        done = run(words, hub_env(nobody, tmp_path / "cache"))
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert f"cached and usable, with --set model.name=NAME: {MODEL}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("status", "message"), [(401, "hf auth login"), (403, "HF_TOKEN"), (404, "no such model")]
)
def test_a_refusal_of_the_hub_says_what_to_do(
    tmp_path: Path, hub: HubServer, status: int, message: str
) -> None:
    hub.fail(MODEL, status)
    done = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert done.returncode == 2, done.stderr
    assert f"HTTP {status}" in done.stderr and message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_download_that_is_interrupted_once_resumes_by_itself(
    tmp_path: Path, hub: HubServer
) -> None:
    # The hub's library keeps complete pieces of 10 MiB, so the file has to be larger than one.
    hub.add_model(
        MODEL,
        support.build_tiny_model(tmp_path / "larger", hidden_size=128, intermediate_size=20_000),
    )
    hub.interrupt_downloads(after_bytes=15 << 20, times=1)
    done = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert any(asked == f"bytes={10 << 20}-" for _, _, asked in hub.requests), hub.requests


def test_after_an_interrupted_download_the_same_command_works_again(
    tmp_path: Path, hub: HubServer
) -> None:
    hub.interrupt_downloads(after_bytes=50_000, times=10**6)
    done = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert done.returncode == 2, done.stderr
    assert "was interrupted" in done.stderr and "run the same command again" in done.stderr
    hub.interrupt_downloads(after_bytes=0, times=0)
    again = run(flags(tmp_path), hub.env(tmp_path / "cache"))
    assert again.returncode == 0, again.stderr
