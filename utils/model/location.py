"""Where a model or tokenizer is loaded from, and which of its files loading fetches."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypedDict

VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model*",
    "vocab*",
    "merges*",
    "spiece*",
    "sentencepiece*",
    "*.model",
    "*.spm",
    "*.bpe",
    "*.tiktoken",
    "tekken.json",
    "bpe.codes",
    "dict.txt",
)
"""Names of the files that contain the vocabulary of a tokenizer of any kind."""
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "tokenizer*",
    "*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Names of all files that tokenizers of any kind are saved in."""
CODE_AND_SETTINGS = ("*.json", "*.txt", "*.py")
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
"""Names of the weights that transformers loads.

Other files with the same endings are not a model's weights.
"""


class HubArguments(TypedDict):
    """Arguments that the functions of the hub's library share."""

    revision: str
    local_files_only: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLocation:
    """A folder, an architecture's ``.json``, or a hub id with its commit.

    Args:
        name: path or hub id.
        revision: commit on the hub; None for local files.
        offline: the hub does not answer, so that only its local cache is used.
        files: names in the folder or repository; empty for an architecture's ``.json``.
    """

    name: str
    revision: str | None = None
    offline: bool = False
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.revision:
            return f"{self.name}@{self.revision}"
        return self.name

    @property
    def hub_arguments(self) -> HubArguments:
        """For the hub's functions and ``from_pretrained``.

        Where the hub does not answer, it is not asked: each question would wait for a timeout.
        """
        return {"revision": self.revision or "main", "local_files_only": self.offline}

    def has_any(self, *patterns: str) -> bool:
        """Whether a file at the top of the folder or repository matches one of the patterns."""
        return any(matches_any(name, patterns) for name in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """The locations of the base model and, if there is one, of the adapter.

    Args:
        adapter: the adapter's folder.
        adapter_name: the adapter as the user names it, with its commit.
    """

    base: ModelLocation
    adapter: Path | None = None
    adapter_name: str | None = None


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name matches one of the patterns of a shell."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def files_to_load(names: tuple[str, ...]) -> set[str]:
    """The files of a repository that loading a model may fetch.

    Pickled weights are among them only where there are no safetensors.
    """
    weights = PICKLED
    if any(matches_any(name, SAFETENSORS) for name in names):
        weights = SAFETENSORS
    patterns = (*CODE_AND_SETTINGS, *TOKENIZER_FILES, *weights)
    return {name for name in names if matches_any(name, patterns)}
