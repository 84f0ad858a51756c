"""Bytes that autograd keeps for the backward pass."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def saved_bytes(function: Callable[[], Any], module: nn.Module) -> int:
    """Count what a forward pass leaves for the backward pass.

    Args:
        function (Callable): The forward pass.
        module (nn.Module): Its parameters and buffers do not count: they
            are there anyway.

    Returns:
        int: Bytes of all other saved storages, each once.
    """
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in chain(module.parameters(), module.buffers())
    }
    saved: list[Tensor] = []  # alive, so that no address comes twice

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in saved
    }
    return sum(n for place, n in storages.items() if place not in own)
