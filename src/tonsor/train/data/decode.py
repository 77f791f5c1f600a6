"""One image file to bytes of one size and one kind of colour.

Needs Pillow, which is in the extra `train` and imported only here.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.tree import Tree

if TYPE_CHECKING:
    from PIL.Image import Image

# Not every format that Pillow knows: for some it starts other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
ORIENTATION = 0x0112  # the EXIF tag
SIDEWAYS = (5, 6, 7, 8)
GREY = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
UNCLEAR = ("I", "F")
# What Pillow's plug-ins raise on malformed input.
STUMBLES = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError,
    AttributeError, MemoryError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What an image file says of itself: its size as it is to be looked at, and if it is grey."""

    height: int
    width: int
    grey: bool


class UnreadableError(ValueError):
    """This file is no image, or a damaged one."""


def header(tree: Tree, name: str) -> Header:
    """Read the beginning of an image file."""
    with _opened(tree, name) as image:
        turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        if image.mode in UNCLEAR:
            message = f"its pixels are of mode {image.mode}, which has no fixed range"
            raise UnreadableError(message)
        return Header(height, width, image.mode in GREY)


def read(tree: Tree, name: str, shape: tuple[int, int, int]) -> Tensor:
    """An image as uint8 [C, H, W].

    It is scaled so that it just covers the wanted size, and what stands out is cut off evenly.
    Transparency is laid over black, palettes are resolved, 16 bits become 8, and a picture that
    says it was taken sideways is turned.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(tree, name) as image:
        upright = ImageOps.exif_transpose(image)
        flat = _flat(upright).convert("L" if channels == 1 else "RGB")
        if (flat.height, flat.width) != (height, width):
            scale = max(height / flat.height, width / flat.width)
            across, down = width / scale, height / scale
            left, top = (flat.width - across) / 2, (flat.height - down) / 2
            # Only the part that stays is scaled: a thin strip would grow to gigabytes. When
            # shrinking, Pillow's bilinear filter widens and so takes in every pixel.
            box = (left, top, left + across, top + down)
            flat = flat.resize((width, height), Image.Resampling.BILINEAR, box)
        pixels = np.array(flat, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _flat(image: Image) -> Image:
    """Without transparency, and with eight bits."""
    from PIL import Image as Pillow

    if image.mode in SIXTEEN:
        return Pillow.fromarray((np.array(image) >> 8).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        black = Pillow.new("RGBA", clear.size, (0, 0, 0, 255))
        return Pillow.alpha_composite(black, clear)
    return image


@contextmanager
def _opened(tree: Tree, name: str) -> Iterator[Image]:
    """An image, with all that Pillow may raise on a bad one told as one error."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        message = "reading image files needs Pillow: pip install 'tonsor[train]'"
        raise DataError(message) from error
    try:
        with tree.open(name) as file, Image.open(file, formats=FORMATS) as image:
            yield image
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        message = "no image of a known format"
        raise UnreadableError(message) from error
    except (*STUMBLES, Image.DecompressionBombError) as error:
        message = str(error) or type(error).__name__
        raise UnreadableError(message) from error
