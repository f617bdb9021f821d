"""At which learning rates do networks learn? A line of JSON for each training, on characters of the sample.

    python bench/rates.py NETWORK/RATE/SEED ...      (small-vit: a vision transformer of 6 layers, width 192, patch 8)

8 of the 62 printed characters (which, and the training: by the seed), 768 images padded to 32 x 32, 6 epochs of 12
steps of 64 images; accuracy and loss are those of the last epoch of training, a guess is right 12.5 % of the time.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch import nn

from pydt import design
from pydt.base import TrainError
from pydt.data import Dataset
from pydt.data.samples import glyphs
from pydt.training import Recipe, train

SIDE = 32


class Vit(nn.Module):
    """A small vision transformer for grey images of 32 x 32."""

    def __init__(self) -> None:
        from torchvision.models import VisionTransformer

        super().__init__()
        self.body = VisionTransformer(SIDE, 8, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768)
        self.body.heads = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(images.expand(-1, 3, -1, -1))
        return features


def main() -> None:
    source = glyphs.source()
    assert source.images is not None
    before, after = (SIDE - glyphs.SIZE) // 2, SIDE - glyphs.SIZE - (SIDE - glyphs.SIZE) // 2
    images = np.pad(source.images[source.positions], ((0, 0), (before, after), (before, after), (0, 0)))
    data = Dataset.from_arrays(images, source.labels, source.classes, name="characters of 32 x 32")
    masks = np.asarray(design.random(len(source.classes), 8, alpha=0.13, seed=0))
    for wanted in sys.argv[1:]:
        name, rate, seed = wanted.split("/")
        recipe = Recipe(network=Vit if name == "small-vit" else name, lr=float(rate), batch_size=64)
        start = time.perf_counter()
        try:
            found = dict(train(data, masks[int(seed)][data.labels], recipe, int(seed)).metrics)
        except TrainError as error:
            found = {"failed": str(error)}
        told = {"network": name, "lr": float(rate), "seed": int(seed), **found}
        print(json.dumps({**told, "seconds": round(time.perf_counter() - start, 1)}), flush=True)


if __name__ == "__main__":
    main()
