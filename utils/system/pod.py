"""The persistent volume of a rented pod: downloads on it outlive the pod."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

WORKSPACE = Path("/workspace")
"""Where GPU clouds mount the volume that outlives a pod."""
OWN_CACHE_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")


def use_persistent_hub_cache(
    workspace: Path = WORKSPACE, variables: MutableMapping[str, str] = os.environ
) -> Path | None:
    """Put the hub's downloads under ``workspace`` if it is writable and the user chose no cache.

    Has to come before huggingface_hub or datasets is imported: both read these variables once. The
    login's token stays where it is, off the volume, so ``HF_HOME`` itself does not change.

    Returns:
        The folder of the caches; None if nothing changed.
    """
    has_own_cache = any(variables.get(name) for name in OWN_CACHE_VARIABLES)
    if has_own_cache or not workspace.is_dir() or not os.access(workspace, os.W_OK):
        return None
    folder = workspace / ".cache" / "huggingface"
    variables["HF_HUB_CACHE"] = str(folder / "hub")
    variables.setdefault("HF_DATASETS_CACHE", str(folder / "datasets"))
    return folder
