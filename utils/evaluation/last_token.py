"""A causal classifier whose last decoder layer is computed for one token a row: the one that the answer is read from.

No later layer asks for the others, so the answer is the same; beside keys and values, the last layer's products fall away.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from utils.core.device import is_out_of_memory

KNOWN = ("llama", "mistral", "qwen2")
"""Models whose layers are built as ``LastLayer`` is. Others have the same parts and rotate or scale by position otherwise."""
ROUNDINGS = 16
"""The answer's hidden state may differ by so many roundings of the model's dtype, as a share of its length."""


class LastLayer(nn.Module):
    """A decoder layer for one token a row, which sees the tokens up to its own."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.rotated = sys.modules[type(layer.self_attn).__module__].apply_rotary_pos_emb

    def forward(
        self, hidden: torch.Tensor, *, answer_at: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **_: Any
    ) -> torch.Tensor:
        """(rows, tokens, hidden) to (rows, 1, hidden); ``answer_at`` holds each row's token."""
        layer, attention = self.layer, self.layer.self_attn
        rows, tokens, _width = hidden.shape
        here = torch.arange(rows, device=hidden.device), answer_at
        normed = layer.input_layernorm(hidden)

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.view(rows, -1, states.shape[-1] // attention.head_dim, attention.head_dim).transpose(1, 2)

        query, key, value = (
            heads(part) for part in (attention.q_proj(normed[here]), attention.k_proj(normed), attention.v_proj(normed))
        )
        cos, sin = (table.expand(rows, -1, -1) for table in position_embeddings)
        query = self.rotated(query, query, cos[here][:, None], sin[here][:, None])[0]
        key = self.rotated(key, key, cos, sin)[0]
        seen = torch.arange(tokens, device=hidden.device) <= answer_at[:, None]
        attended, _weights = sdpa_attention_forward(
            attention, query, key, value, seen[:, None, None], scaling=attention.scaling, is_causal=False
        )
        answer = hidden[here][:, None] + attention.o_proj(attended.reshape(rows, 1, -1))
        return answer + layer.mlp(layer.post_attention_layernorm(answer))  # type: ignore[no-any-return]


class LastTokenClassifier(nn.Module):
    """Shares all weights of ``model``, which stays as it is."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        backbone = _shallow_copy(model.base_model)
        backbone.layers = nn.ModuleList([*backbone.layers[:-1], LastLayer(backbone.layers[-1])])
        self.backbone, self.score = backbone, model.score
        self.eval()

    def hidden(self, input_ids: torch.Tensor, attention_mask: Any, answer_at: torch.Tensor) -> torch.Tensor:
        """The answer's normed hidden state, (rows, hidden)."""
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, answer_at=answer_at, use_cache=False)
        return states.last_hidden_state[:, 0]  # type: ignore[no-any-return]

    def forward(self, input_ids: torch.Tensor, attention_mask: Any, answer_at: torch.Tensor) -> torch.Tensor:
        """Logits (rows, labels) of token ids (rows, tokens) padded on the right."""
        return self.score(self.hidden(input_ids, attention_mask, answer_at))  # type: ignore[no-any-return]

    def compiled(self) -> LastTokenClassifier:
        """The same, its layers compiled one by one: equal ones share a program, so that many take no longer to compile."""
        other, backbone = _shallow_copy(self), _shallow_copy(self.backbone)
        layers: list[Any] = [torch.compile(layer, dynamic=True) for layer in self.backbone.layers]
        backbone.layers, backbone.norm = nn.ModuleList(layers), torch.compile(self.backbone.norm, dynamic=True)
        other.backbone = backbone
        return other


def _shallow_copy(module: Any) -> Any:
    """A module of the same parts, in which some may be replaced."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other


@torch.inference_mode()
def last_token_classifier(model: Any, unmasked: dict[str, None] | None, device: torch.device) -> LastTokenClassifier | None:
    """None where the causal model is not ``KNOWN``, or where a trial of two rows gives another hidden state than it does.

    Args:
        unmasked: what tells the model that there is no mask, as ``said_unmasked`` gives it.
    """
    settings = model.config
    sees_all = getattr(settings, "sliding_window", None) is None  # the trial's rows are too short to show it
    if settings.model_type not in KNOWN or not sees_all or settings._attn_implementation != "sdpa":
        return None
    try:
        short = LastTokenClassifier(model)
        ids, answer_at = torch.arange(1, 17, device=device).view(2, 8), torch.tensor([7, 4], device=device)
        expected = model.base_model(input_ids=ids, attention_mask=unmasked).last_hidden_state[torch.arange(2), answer_at]
        apart = (short.hidden(ids, unmasked, answer_at) - expected).norm(dim=-1) / expected.norm(dim=-1)
    except Exception as error:  # noqa: BLE001 - a model of foreign code under a known name says so in its own way
        if is_out_of_memory(error):
            raise
        return None
    return short if bool((apart <= ROUNDINGS * torch.finfo(expected.dtype).eps).all()) else None
