"""VGG with batch norm for images of 32 by 32 pixels, in the forms that papers on pruning use."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from tonsor.zoo.layers import scaled, start_convolutions

Head: TypeAlias = Literal["linear", "hidden"]
Ending: TypeAlias = Literal["max", "mean"]

# How many convolutions there are at each size of the picture, and how wide they are.
_DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """3x3 convolutions at five sizes of the picture, then a head of linear layers.

    `bias` gives the convolutions a bias, as torchvision's have; batch norm makes it useless.
    `head` is one linear layer, or with "hidden" a layer of 512 with batch norm before it (as GAL
    and HRank have it). `ending` is how the last 2x2 pixels become one: by their maximum, or by
    their mean (as Network Slimming and `rethinking` do).

    >>> Vgg(16, head="hidden", width=0.25).classifier[0]
    Linear(in_features=128, out_features=128, bias=True)
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int = 10,
        width: float = 1.0,
        channels: int = 3,
        bias: bool = False,
        head: Head = "linear",
        ending: Ending = "max",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for number, outputs in zip(_DEPTHS[depth], _WIDTHS, strict=True):
            outputs = scaled(outputs, width)
            for _ in range(number):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        if ending == "mean":
            layers[-1] = nn.AvgPool2d(2)
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Linear(inputs, classes)
        if head == "hidden":
            self.classifier = nn.Sequential(
                nn.Linear(inputs, inputs), nn.BatchNorm1d(inputs), nn.ReLU(), self.classifier
            )
        start_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of the classes."""
        return self.classifier(self.features(x).flatten(1))
