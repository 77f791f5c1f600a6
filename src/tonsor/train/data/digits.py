"""The handwritten digits that come with the package: 1,797 images of 8 by 8 pixels.

Where they are from, and under which licence, is in `digits.txt` beside this file.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch

from tonsor.train.data.augment import Augment
from tonsor.train.data.source import Data, Memory, Subset, statistics

# The values go from 0 to 16. Times 15 they fill the range of a byte, and no value is rounded.
BRIGHTER = 15
LICENCE = "UCI handwritten digits, E. Alpaydin and C. Kaynak, CC BY 4.0"


def digits() -> Data:
    """The embedded digits: 1,437 to learn from and 360 to test on.

    >>> data = digits()
    >>> data.shape, len(data.train), len(data.test)
    ((1, 8, 8), 1437, 360)
    """
    with (
        as_file(files("tonsor.train.data") / "digits.npz") as path,
        np.load(path, allow_pickle=False) as arrays,
    ):
        images = torch.from_numpy(arrays["images"]).mul(BRIGHTER)[:, None]
        labels = torch.from_numpy(arrays["labels"])
        test = torch.from_numpy(arrays["test"])
    every = Memory(images, labels, tuple("0123456789"), "digits")
    train = Subset(every, (~test).nonzero().flatten())
    mean, std = statistics(train)
    return Data(
        name="digits",
        train=train,
        test=Subset(every, test.nonzero().flatten()),
        mean=mean,
        std=std,
        augment=Augment(pad=1, flip=False),
        licence=LICENCE,
    )
