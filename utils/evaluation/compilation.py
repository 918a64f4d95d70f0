"""A classifier through ``torch.compile``: layer by layer where all layers are alike, else the
entire model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def compile_model(model: Any) -> Any:
    """Return a compiled model that shares all weights with ``model``, which is left as it is.

    Layers of one class are compiled one by one: they share one program, so that a deep model takes
    no longer to compile than a shallow one. The rest of such a model (embeddings, the construction
    of masks, the classification head) runs as it is.
    """
    if not has_equal_layers(model):
        return torch.compile(model, dynamic=True)
    backbone = _shallow_copy(model.base_model)
    compiled_layers: list[Any] = [
        torch.compile(layer, dynamic=True) for layer in model.base_model.layers
    ]
    backbone.layers = nn.ModuleList(compiled_layers)
    compiled = _shallow_copy(model)
    setattr(compiled, model.base_model_prefix, backbone)
    return compiled


def has_equal_layers(model: Any) -> bool:
    """Whether the model has a backbone with a list ``layers`` whose modules are all of one class.

    That is how transformers builds its decoders. Adapters that are not merged wrap the model in
    modules of their own and are not of this kind.
    """
    if not isinstance(model, nn.Module):
        return False
    prefix = getattr(model, "base_model_prefix", None)
    backbone = model._modules.get(prefix) if prefix else None
    layers = getattr(backbone, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return False
    return len({type(layer) for layer in layers}) == 1


def _shallow_copy(module: Any) -> Any:
    """A module that has the same parts, some of which may then be replaced in the copy alone."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
