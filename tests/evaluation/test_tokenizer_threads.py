"""One thread at a time uses a tokenizer, whose padding and truncation are a state of its own."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

from tests.evaluation.conftest import Evaluate
from utils.model_utils import LoadedModel


class CountingTokenizer:
    """A real tokenizer, slow for chunks, that counts the calls which run at the same time."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._running = 0
        self.num_calls = 0
        self.most_at_once = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            self.num_calls += 1
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        if threading.current_thread().name.startswith("tokenise"):
            time.sleep(0.3)
        try:
            return self._inner(*args, **options)
        finally:
            with self._lock:
                self._running -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_the_check_of_single_texts_waits_for_the_next_chunk(
    evaluate: Evaluate, loaded: LoadedModel
) -> None:
    tokenizer = CountingTokenizer(loaded.tokenizer)
    metrics = evaluate(
        "evaluation.chunk_rows=20",
        "evaluation.max_tokens_per_batch=300",
        model=dataclasses.replace(loaded, tokenizer=tokenizer),
    )
    assert metrics.num_samples == 60
    assert tokenizer.num_calls > 3
    assert tokenizer.most_at_once == 1
