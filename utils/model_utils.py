"""A model and tokenizer ready to run, and what they are and weigh."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PretrainedConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_flash_attn_2_available

from utils.config_loader import Config, ModelConfig
from utils.core.artifacts import read_json
from utils.core.device import resolve_device
from utils.core.errors import ConfigError, ModelError
from utils.data.labels import ModelLabels
from utils.model.label_names import parse_label_names
from utils.model_source import Place, Source, adapter_head, embedded_folder, loading, locate, place_of

logger = logging.getLogger(__name__)

LOAD_PARTS = ("tokenizer_s", "weights_s", "to_device_s")
LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""How far two logits may lie apart, relative to the largest: rounding of 10, 10 and 7 bits of mantissa (float32
may run in TF32), grown over the layers. Padding and batching change the order of sums, nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """What a loaded model is. ``total_size_mb`` is the parameters alone, tied ones once; MB is 10^6 bytes.

    ``load_times`` are seconds by part (``tokenizer_s``, ``weights_s``, ``to_device_s``); ``total_s`` holds what lies between too.
    """

    model_type: str
    name: str
    revision: str | None
    adapter: str | None
    total_params: int
    trainable_params: int
    non_trainable_params: int
    total_size_mb: float
    weights: str
    dtype: str
    device: str
    attn_implementation: str
    num_labels: int
    max_position_embeddings: int | None
    load_times: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values under the names of the contract."""
        return {**asdict(self), "load_time_s": self.load_times["total_s"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A classifier in evaluation mode on its device, with a tokenizer that pads on the right."""

    model: Any
    tokenizer: Any
    info: ModelInfo
    device: torch.device


def load_model(config: Config) -> LoadedModel:
    """Load what the config names, ready to classify.

    ModelError: not there, no sequence classifier, not loadable, or the device is absent; UserError: the hub's failures.
    """
    settings = config.model
    started = time.perf_counter()
    torch.set_float32_matmul_precision(settings.matmul_precision)
    device = resolve_device(settings.device)
    _check_attention(settings)
    source, dummy = locate(config), settings.load_format == "dummy"
    log: Any = transformers_logging  # its functions have no types
    log.set_verbosity_error()  # what it reports of keys we check and say ourselves
    if not sys.stderr.isatty():
        log.disable_progress_bar()
    stamps = [time.perf_counter()]
    tokenizer = load_tokenizer(config, source)
    stamps.append(time.perf_counter())
    model = _build_dummy(settings, source, device) if dummy else _load_weights(settings, source)
    stamps.append(time.perf_counter())
    with loading("model", source.base):
        model = model.to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    stamps.append(time.perf_counter())
    _make_ready(model, tokenizer, source.base)
    times = {part: end - begin for part, (begin, end) in zip(LOAD_PARTS, pairwise(stamps), strict=True)}
    times["total_s"] = time.perf_counter() - started
    logger.info("loaded %s: %s", source.base, times)
    total, trainable = model.num_parameters(), model.num_parameters(only_trainable=True)
    info = ModelInfo(
        model_type=model.config.model_type, name=settings.name if source.adapter is None else source.base.name,
        revision=source.base.revision, adapter=source.adapter_name,
        total_params=total, trainable_params=trainable, non_trainable_params=total - trainable,
        total_size_mb=sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
        weights="dummy" if dummy else "pretrained", dtype=settings.dtype, device=str(device),
        attn_implementation=model.config._attn_implementation, num_labels=model.config.num_labels,
        max_position_embeddings=_max_positions(model), load_times=times,
    )
    return LoadedModel(model=model, tokenizer=tokenizer, info=info, device=device)


def load_model_and_tokenizer(
    model_name: str, device: str = "cuda", dtype: str | torch.dtype = "float32", **model_settings: Any
) -> tuple[Any, Any]:
    """The model and tokenizer alone; ``model_settings`` are further settings of the config's ``model`` section."""
    settings = {"name": model_name, "device": str(device), "dtype": str(dtype).removeprefix("torch."), **model_settings}
    try:
        loaded = load_model(Config(model=ModelConfig.model_validate(settings)))
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][0]} cannot be {e['input']!r}: {e['msg']}" for e in error.errors())
        known = ", ".join(ModelConfig.model_fields)
        raise ConfigError(wrong, where="load_model_and_tokenizer", fix=f"settings are: {known}") from error
    return loaded.model, loaded.tokenizer


def model_labels(config: Config) -> ModelLabels:
    """The label names of the configured model from its configuration alone, without its weights.

    Raises:
        ModelError: the configuration cannot be read, or its label names contradict each other.
    """
    source = locate(config)
    labels = parse_label_names(read_raw_config(source.base, config.model.trust_remote_code), source.base)
    head = adapter_head(source.adapter)
    if head is not None and head[1] != labels.num_labels:
        # The adapter brings another head, so the base model's names are not its names.
        return ModelLabels(names=None, num_labels=head[1])
    return labels


def read_raw_config(base: Place, trust_remote_code: bool) -> dict[str, Any]:
    """The contents of ``config.json``, before transformers fills in defaults."""
    if base.name.endswith(".json"):
        return read_json(Path(base.name), made_by="the model's save_pretrained")
    with loading("model", base):
        raw, _ = PretrainedConfig.get_config_dict(**base.arguments, trust_remote_code=trust_remote_code)
    return dict(raw)


def model_summary_lines(info: ModelInfo) -> list[str]:
    """The lines of the MODEL SUMMARY block."""
    params = f"Total Parameters: {info.total_params:,} ({info.total_params / 1e6:.2f}M)"
    return [f"Model Type: {info.model_type}", params, f"Model Size: {info.total_size_mb:,.2f} MB"]


def check_max_length(max_length: int, model: Any) -> None:
    """Refuse texts longer than the model has positions for (ModelError); a model that does not say how many takes all."""
    limit = _max_positions(model)
    if max_length < 1 or limit is not None and max_length > limit:
        what = f"profiling.max_length is {max_length}, but the model has {limit or 'at least 1'} positions."
        raise ModelError(what, where="profiling.max_length", fix=f"--set profiling.max_length={limit or 512}")


def _max_positions(model: Any) -> int | None:
    config = getattr(model, "config", None)
    return getattr(config.get_text_config(), "max_position_embeddings", None) if config else None


def encode_batch(tokenizer: Any, texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` of the texts as one batch, int64 on the CPU, padded to its longest text.

    No model runs on no token at all: where every text is empty, each gets one token of padding.
    """
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    if encoded["input_ids"].shape[1] == 0:
        shape = (len(texts), 1)
        return {"input_ids": torch.full(shape, tokenizer.pad_token_id), "attention_mask": torch.zeros(shape, dtype=torch.long)}
    return {name: encoded[name].long() for name in ("input_ids", "attention_mask")}


def classify(loaded: LoadedModel, texts: list[str], max_length: int) -> torch.Tensor:
    """Logits of the texts as one batch, float32 on the CPU, shape (texts, labels)."""
    batch = encode_batch(loaded.tokenizer, texts, max_length)
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(**{name: tensor.to(loaded.device) for name, tensor in batch.items()}).logits
    return logits.float().cpu()


def check_batching(loaded: LoadedModel, texts: list[str], max_length: int) -> tuple[list[str], float]:
    """Classify the texts one by one and as a batch; returns the labels, and the largest difference of a logit.

    RuntimeError where logits differ by more than the precision's rounding, or labels do whose two best lie further apart than
    that: padding or the attention mask is not honoured.
    """
    alone = torch.cat([classify(loaded, [text], max_length) for text in texts])
    together = classify(loaded, texts, max_length)
    difference = float((alone - together).abs().max())
    allowed = LOGIT_TOLERANCE[loaded.info.dtype] * max(1.0, float(alone.abs().max()))
    best_two = alone.topk(min(2, alone.shape[1])).values
    clear = best_two[:, 0] - best_two[:, -1] > 2 * allowed
    if not difference <= allowed or bool((clear & (alone.argmax(1) != together.argmax(1))).any()):
        raise RuntimeError(f"one by one and as a batch differ: logits by {difference:.3g}, allowed are {allowed:.3g}")
    return [loaded.model.config.id2label[int(i)] for i in alone.argmax(1)], difference


def _check_attention(settings: ModelConfig) -> None:
    if settings.attn_implementation != "flash_attention_2":
        return
    where, fix = "model.attn_implementation", "--set model.attn_implementation=sdpa"
    if not is_flash_attn_2_available():
        what = "flash_attention_2 needs the package flash-attn and a CUDA GPU."
        raise ModelError(what, where=where, fix=f"pip install flash-attn, or {fix}")
    if settings.dtype == "float32":
        raise ModelError("flash_attention_2 has no float32.", where=where, fix=f"--set model.dtype=bfloat16, or {fix}")


def load_tokenizer(config: Config, source: Source) -> Any:
    """The tokenizer alone: the one that is set, the adapter's, the model's, or for a bare architecture the embedded one."""
    folder, place = Path(source.base.name), source.base
    bare = folder.is_dir() and not any(folder.glob("tokenizer*"))
    if config.model.tokenizer:
        place = place_of(config, config.model.tokenizer, None, "tokenizer")
    elif source.adapter is not None and (source.adapter / "tokenizer_config.json").is_file():
        place = Place(name=str(source.adapter))
    elif folder.is_file() or bare and config.model.load_format == "dummy":
        place = Place(name=str(embedded_folder(config)))
    with loading("tokenizer", place):
        return AutoTokenizer.from_pretrained(**place.arguments, trust_remote_code=config.model.trust_remote_code)


def _read_architecture(settings: ModelConfig, base: Place) -> Any:
    with loading("model", base):
        return AutoConfig.from_pretrained(**base.arguments, trust_remote_code=settings.trust_remote_code)


def _options(settings: ModelConfig) -> dict[str, Any]:
    options = {"dtype": getattr(torch, settings.dtype), "trust_remote_code": settings.trust_remote_code}
    if settings.attn_implementation != "auto":  # without the argument transformers takes sdpa where it is supported, else eager
        options["attn_implementation"] = settings.attn_implementation
    return options


def _load_weights(settings: ModelConfig, source: Source) -> Any:
    """Real weights on the CPU in the wanted precision; an adapter is merged."""
    architecture = _read_architecture(settings, source.base)
    head = adapter_head(source.adapter)
    names = architecture.architectures or []
    if head is None and not any(name.endswith("ForSequenceClassification") for name in names):
        raise _no_classifier(source.base, f"its architecture is {', '.join(names) or 'not named'}")
    labels: dict[str, Any] = {"num_labels": head[1]} if head and head[1] != architecture.num_labels else {}
    with loading("model", source.base):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            **source.base.arguments, **labels, **_options(settings), use_safetensors=True, output_loading_info=True
        )
    missing = sorted(set(report["missing_keys"]) - (head[0] if head else set()))
    if missing:
        raise _no_classifier(source.base, f"its checkpoint lacks {', '.join(missing[:5])}")
    return model if source.adapter is None else _merge(model, source.adapter)


def _no_classifier(base: Place, why: str) -> ModelError:
    fix = "name a model fine-tuned for classification, or measure speed alone with --set model.load_format=dummy"
    return ModelError(f"The model is no sequence classifier: {why}.", where=base, fix=fix)


def _merge(model: Any, folder: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        what = "The model is a PEFT adapter, and the package peft is not installed."
        raise ModelError(what, where=folder, fix="pip install peft") from error
    with loading("adapter", Place(name=str(folder))):
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


def _build_dummy(settings: ModelConfig, source: Source, device: torch.device) -> Any:
    """The architecture with seeded random weights, made where they stay: no copy on the CPU, no second precision."""
    architecture = _read_architecture(settings, source.base)
    auto: Any = AutoModelForSequenceClassification  # from_config has no types
    with loading("model", source.base), torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        torch.manual_seed(settings.seed)
        return auto.from_config(architecture, **_options(settings))


def _make_ready(model: Any, tokenizer: Any, base: Place) -> None:
    """Padding on the right with a token that both sides know, no key-value cache, evaluation mode."""
    if tokenizer.pad_token_id is None:
        known = model.config.pad_token_id
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(known) if known is not None else tokenizer.eos_token
        if tokenizer.pad_token is None:
            fix = "set pad_token in its tokenizer_config.json"
            raise ModelError("The tokenizer has no token to pad with.", where=base, fix=fix)
    tokenizer.padding_side = "right"
    rows, highest = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values())
    if highest >= rows:
        what = f"The tokenizer's ids go up to {highest:,}, the model knows {rows:,} tokens."
        raise ModelError(what, where=base, fix="name the model's own tokenizer with --set model.tokenizer=NAME")
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    model.eval()
