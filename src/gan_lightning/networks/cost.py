"""What a network is made of and what one image costs: weights and multiply-adds, layer by layer."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def cost(network: nn.Module, *inputs: Tensor) -> dict[str, Any]:
    """{"weights", "multiply_adds", "layers": [{"name", "kind", "output", "weights", "multiply_adds"}]} for one image.

    inputs: what `forward` takes, (B, ...) with any B; only shapes matter, nothing is computed (meta tensors, a copy of the
    network). Multiply-adds are those of matrix products and convolutions, half of what PyTorch counts as operations;
    norms and activations are left out. A layer is a module that holds weights or constants itself.
    """
    dry, root = copy.deepcopy(network).to("meta").eval(), type(network).__name__
    layers = {
        name: layer
        for name, layer in dry.named_modules()
        if "parametrizations" not in name
        and [
            *layer.parameters(recurse=False),
            *layer.buffers(recurse=False),
            *getattr(layer, "parametrizations", []),
        ]
    }
    shapes: dict[str, list[int]] = {}  # in the order of the calls
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: list(out.shape[1:])})
        )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        dry(*(x.to("meta") for x in inputs))
    counted = {
        name: sum(by_kind.values()) // 2 // len(inputs[0])
        for name, by_kind in counter.get_flop_counts().items()
    }
    return {
        "weights": sum(p.numel() for p in network.parameters()),
        "multiply_adds": counted.get("Global", 0),
        "layers": [
            {
                "name": name,
                "kind": type(layers[name]).__name__,
                "output": shape,
                "weights": sum(p.numel() for p in layers[name].parameters()),
                "multiply_adds": counted.get(f"{root}.{name}", 0),
            }
            for name, shape in shapes.items()
        ],
    }
