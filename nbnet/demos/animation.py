"""Animations: a frame is a snapshot of a figure; Pillow writes frames as a GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.storage import write_file


def frame(figure: Any) -> Any:
    """The current state of a matplotlib figure as a Pillow image."""
    from PIL import Image

    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def save(frames: Sequence[Any], path: Path, milliseconds: Sequence[int], colours: int = 64) -> None:
    """Write frames as a repeating GIF, each shown for its time. All use the palette of the last frame.

    Raises:
        DataError: the file cannot be written.
    """
    from PIL import Image

    palette = frames[-1].quantize(colours, method=Image.Quantize.FASTOCTREE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    animation = io.BytesIO()
    images[0].save(animation, "GIF", save_all=True, append_images=images[1:], duration=list(milliseconds), loop=0, optimize=False)
    write_file(path, animation.getvalue())
