"""What an image looks like in 8 bits on a background: in float64, from its samples and the definition of alpha."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shown(samples: NDArray[np.generic], bits: int, ground: tuple[int, int, int]) -> Floats:
    """(height, width, 3) on the scale 0..255.

    Args:
        samples: (height, width, channels) of 0..2^bits - 1: grey, grey and alpha, RGB, or RGB and alpha.
    """
    share = samples.astype(np.float64) / (2**bits - 1)
    channels = samples.shape[2]
    colours = share[..., :1].repeat(3, axis=2) if channels < 3 else share[..., :3]
    alpha = share[..., -1:] if channels in (2, 4) else np.ones_like(share[..., :1])
    return 255 * (alpha * colours + (1 - alpha) * np.array(ground) / 255)
