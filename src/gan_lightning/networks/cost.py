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
    norms and activations are left out. A layer is a module that holds weights or constants
    itself.
    """
    dry = copy.deepcopy(network).to("meta").eval()
    layers: list[dict[str, Any]] = []
    with FlopCounterMode(display=False) as counter, torch.no_grad():

        def note(name: str, layer: nn.Module) -> Any:
            before = {"at": 0}

            def start(*_: Any) -> None:
                before["at"] = counter.get_total_flops()

            def end(_: nn.Module, __: Any, out: Tensor) -> None:
                done = counter.get_total_flops() - before["at"]
                layers.append(
                    {
                        "name": name,
                        "kind": type(layer).__name__,
                        "output": list(out.shape[1:]),
                        "weights": sum(p.numel() for p in layer.parameters()),
                        "multiply_adds": done // 2 // len(inputs[0]),
                    }
                )

            layer.register_forward_pre_hook(start)
            layer.register_forward_hook(end)

        for name, layer in dry.named_modules():
            held = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)] or hasattr(
                layer, "parametrizations"
            )
            if held and "parametrizations" not in name:
                note(name, layer)
        dry(*(x.to("meta") for x in inputs))
        total = counter.get_total_flops()
    weights = sum(p.numel() for p in network.parameters())
    return {"weights": weights, "multiply_adds": total // 2 // len(inputs[0]), "layers": layers}
