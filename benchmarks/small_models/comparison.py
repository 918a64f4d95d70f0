"""The program's predictions for one small classifier, compared with those of transformers alone.

transformers alone means: one text at a time, with everything that the tokenizer returns.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.small_models.classifiers import (
    BUILD_ERRORS,
    MAX_LENGTH,
    NotBuildableError,
    build,
    class_name,
    find_head,
    first_sentence,
    run_alone,
    tokenizer_kind,
)
from benchmarks.small_models.tokenizer_kinds import KINDS, texts
from utils.config_loader import Config
from utils.core.errors import ModelError, UserError
from utils.evaluation.batching import Batching
from utils.evaluation.predictor import Predictor
from utils.evaluation.tokens import tokenize
from utils.model_utils import (
    LoadedModel,
    check_max_length,
    check_on_texts,
    classify,
    load_model,
    texts_of_one_end_token,
)
from utils.settings import ModelConfig, ProfilingConfig

RIGHT, REFUSED, NOT_BUILDABLE, WRONG = "right", "refused", "not buildable", "WRONG"
RESULTS = (RIGHT, REFUSED, NOT_BUILDABLE, WRONG)
TOLERANCE = 1e-3
"""Largest difference of a probability; padding changes the order of sums, by 1e-5 at most here."""
ROWS_A_BATCH = 8
TOKENS_A_BATCH = 512
SHORT, MEDIUM = [1] * 8, list(range(2, 20))
LONG = [24, 28, 33, 37, 42, 46, 51, 55, 60, 66, 72, 78, 84, 95, 130, 150]
LENGTHS = (*SHORT, *MEDIUM, *LONG)
"""Words of each text. The last ones are truncated."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result for one class; ``remark`` is its reason, or how the class was tried."""

    model_type: str
    class_name: str
    result: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class ProgramPredictions:
    """The most probable label, and its probability, of the texts at positions ``rows``."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def outcome(model_type: str, result: str, remark: str) -> Outcome:
    """The outcome for a model type, with the name of its class."""
    return Outcome(
        model_type=model_type, class_name=class_name(model_type), result=result, remark=remark
    )


def save(report: Path, result: Outcome) -> None:
    """Write an outcome to a file."""
    report.write_text(json.dumps(asdict(result)), encoding="utf-8")


def load(report: Path) -> Outcome:
    """Read an outcome that ``save`` has written."""
    return Outcome(**json.loads(report.read_text(encoding="utf-8")))


def sample_texts(model_type: str) -> list[str]:
    """Texts of very different lengths, the short ones among the long ones.

    Some hold the end token of the model's tokenizer, because it is often the padding token too.
    """
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    sample = texts([LENGTHS[i] for i in order], seed=2)
    kind = KINDS.get(tokenizer_kind(model_type))
    if kind is None:
        return sample
    end = kind.roles.get("eos_token") or kind.roles["sep_token"]
    with_end = [f"{text} {end}" for text in sample[:4]]
    return [*sample, *with_end, f"{sample[4]} {end} {sample[5]}"]


def ask_transformers(folder: Path, sample: Sequence[str]) -> torch.Tensor:
    """Probabilities of each text alone, shape (texts, labels).

    Each text gets a copy of the model, because some models change themselves while they run, as
    BigBird does after a short text.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = [run_alone(copy.deepcopy(model), tokenizer, text) for text in sample]
    return torch.cat(logits).softmax(dim=-1)


def ask_program(
    folder: Path, sample: Sequence[str], *, batch_size: int = ROWS_A_BATCH, disturb: bool = False
) -> Iterator[tuple[str, ProgramPredictions]]:
    """The program's predictions by its ways of making batches; nothing else here calls the program.

    Args:
        batch_size: the sweep's largest batch.
        disturb: spoil every batch of several texts, to see that the comparison notices.

    Raises:
        UserError: The program refuses the model.
    """
    config = Config(
        model=ModelConfig(name=str(folder), device="cpu"),
        profiling=ProfilingConfig(batch_sizes=(batch_size,), max_length=MAX_LENGTH),
    )
    loaded = load_model(config)
    check_max_length(MAX_LENGTH, loaded.model)
    check_on_texts(loaded, sample, MAX_LENGTH)
    if disturb:
        find_head(loaded.model).register_forward_hook(_disturbed)

    yield "sweep", _predict_as_the_sweep(loaded, sample, batch_size)
    by_length = Batching(kind="token_budget", limit=TOKENS_A_BATCH)
    in_order = Batching(kind="dataset_order", limit=ROWS_A_BATCH)
    for name, batching in (("evaluation", by_length), ("evaluation in file order", in_order)):
        predictor = Predictor(loaded.model, loaded.inputs, loaded.device, batching)
        chunk = tokenize(loaded.tokenizer, list(sample), MAX_LENGTH, loaded.inputs)
        predictions = predictor.predict(chunk)
        yield (
            name,
            ProgramPredictions(
                rows=np.arange(len(sample)),
                labels=predictions.predicted_ids,
                probabilities=predictions.probabilities,
            ),
        )


def _predict_as_the_sweep(
    loaded: LoadedModel, sample: Sequence[str], batch_size: int
) -> ProgramPredictions:
    usable = texts_of_one_end_token(loaded, sample, MAX_LENGTH)
    logits = []
    for start in range(0, len(usable), batch_size):
        logits.append(classify(loaded, usable[start : start + batch_size], MAX_LENGTH))
    best = torch.cat(logits).softmax(dim=-1).max(dim=-1)
    return ProgramPredictions(
        rows=np.array([sample.index(text) for text in usable]),
        labels=best.indices.numpy(),
        probabilities=best.values.numpy(),
    )


def _disturbed(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return -output if len(output) > 1 else output


def difference(expected: torch.Tensor, predictions: ProgramPredictions) -> str | None:
    """What differs from the expected probabilities; None where nothing does but rounding."""
    probabilities = expected[predictions.rows]
    best_two = probabilities.topk(2).values
    # Where two labels are almost equally probable, rounding may decide.
    is_clear = (best_two[:, 0] - best_two[:, 1] > 2 * TOLERANCE).numpy()
    is_other = probabilities.argmax(dim=-1).numpy() != predictions.labels
    wrong_labels = int((is_clear & is_other).sum())
    expected_ones = probabilities.numpy()[np.arange(len(predictions.rows)), predictions.labels]
    largest = float(np.abs(expected_ones - predictions.probabilities).max())
    # Written so that NaN is a difference.
    if wrong_labels == 0 and largest <= TOLERANCE:
        return None
    return f"{wrong_labels} of {len(predictions.rows)} labels, probabilities by up to {largest:.2g}"


def compare(model_type: str, folder: Path, report: Path, *, disturb: bool = False) -> None:
    """Build, run and compare one class.

    The report always holds the outcome that is right if the process ends at that moment.
    """
    save(report, outcome(model_type, NOT_BUILDABLE, "its process ended while it was built"))
    sample = sample_texts(model_type)
    try:
        build(model_type, folder)
        expected = ask_transformers(folder, sample)
    except NotBuildableError as error:
        save(report, outcome(model_type, NOT_BUILDABLE, str(error)))
        return
    save(report, outcome(model_type, WRONG, "the program's process ended"))
    save(report, _compare_built(model_type, folder, expected, disturb=disturb))


def _compare_built(
    model_type: str, folder: Path, expected: torch.Tensor, *, disturb: bool
) -> Outcome:
    sample = sample_texts(model_type)
    try:
        wrong = _differences(expected, ask_program(folder, sample, disturb=disturb))
    except UserError as error:
        return _compare_refused(model_type, folder, expected, error)
    except Exception as error:  # noqa: BLE001 - whatever the program raises is this class's result
        return outcome(model_type, WRONG, _crash(error))
    if wrong:
        return outcome(model_type, WRONG, wrong)
    return outcome(model_type, RIGHT, f"tokenizer: {tokenizer_kind(model_type)}")


def _compare_refused(
    model_type: str, folder: Path, expected: torch.Tensor, error: UserError
) -> Outcome:
    """Follow the program's advice to measure single texts, where it gives it."""
    sample = sample_texts(model_type)
    judgement = _judge_refusal(folder, sample, expected)
    remark = f"{error.what.rstrip('.')}; {judgement}"
    if "batch_sizes=[1]" not in (error.fix or ""):
        return outcome(model_type, REFUSED, remark)
    try:
        wrong = _differences(expected, ask_program(folder, sample, batch_size=1))
    except ModelError as again:
        return outcome(model_type, WRONG, f"the advice {error.fix} ends in: {again.what}")
    except Exception as crash:  # noqa: BLE001 - whatever the program raises is this class's result
        return outcome(model_type, WRONG, f"the advice {error.fix} ends in: {_crash(crash)}")
    if wrong:
        return outcome(model_type, WRONG, f"after the advice {error.fix}: {wrong}")
    return outcome(model_type, REFUSED, f"{remark}; with profiling.batch_sizes=[1] right")


def _differences(
    expected: torch.Tensor, predictions: Iterator[tuple[str, ProgramPredictions]]
) -> str:
    """What differs, by the way in which batches were made; empty where nothing does."""
    wrong = []
    for name, given in predictions:
        what = difference(expected, given)
        if what is not None:
            wrong.append(f"{name}: {what}")
    return "; ".join(wrong)


def _crash(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    message = f"{type(error).__name__}: {first_sentence(error)}"
    if trace is None:
        return message
    return f"{message} ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


def _judge_refusal(folder: Path, sample: Sequence[str], expected: torch.Tensor) -> str:
    """Whether transformers' own padded batches give what each text gets alone."""
    try:
        padded = padded_difference(folder, sample, expected)
    except BUILD_ERRORS as error:
        return f"transformers cannot run a padded batch either: {first_sentence(error)}"
    if padded <= TOLERANCE:
        return "transformers' own padded batches are right"
    return f"transformers' own padded batches differ by up to {padded:.2g}"


def padded_difference(folder: Path, sample: Sequence[str], expected: torch.Tensor) -> float:
    """Largest difference of a probability in transformers' own padded batches, on the better side.

    A tokenizer without a padding token gets one that no text ends in.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.bos_token
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
    plain = list(sample[: len(LENGTHS)])
    differences = []
    for side in ("right", "left"):
        tokenizer.padding_side = side
        batch = tokenizer(
            plain, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = copy.deepcopy(model)(**batch).logits.float()
        differences.append(float((logits.softmax(dim=-1) - expected[: len(plain)]).abs().max()))
    return min(differences)
