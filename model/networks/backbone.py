"""The ResNet trunk that runs on every frame.

Basic blocks as in He et al. 2015 (arXiv 1512.03385), parameter names as torchvision's, so that published ResNet-18
weights load by name. The stem's kernel, the stages and their widths are the configuration's.
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Trunk(nn.Module):
    """ResNet without its pooling and classifier.

    Args:
        stem_kernel: side of the first convolution.
        widths: channels of each stage.
        blocks: basic blocks of each stage.

    Shape:
        `[B, 3, S, S]` -> `[B, widths[-1], g, g]`, g = S halved 1 + len(widths) times, rounding up.
    """

    def __init__(self, stem_kernel: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], stem_kernel, 2, stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = widths[0]
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            stage = nn.Sequential()
            for block in range(count):
                stride = 2 if block == 0 and index > 1 else 1
                stage.append(BasicBlock(channels, width, stride))
                channels = width
            self.add_module(f"layer{index}", stage)  # torchvision's name
        self.stages = len(widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """Pixels to the first map: `[B, 3, S, S]` -> `[B, widths[0], S/4, S/4]`."""
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stage_range(self, x: Tensor, first: int, end: int) -> Tensor:
        """Runs the stages from `first` up to `end`, from 0; each but number 0 halves the map."""
        for index in range(first, end):
            x = self.get_submodule(f"layer{index + 1}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.stage_range(self.stem(x), 0, self.stages)
