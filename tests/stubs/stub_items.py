"""A data set of items, as torch has them."""

from __future__ import annotations

from typing import Any

import torch.utils.data
from PIL import Image


class Pairs(torch.utils.data.Dataset[Any]):
    """Items of one's own, with names in any form."""

    def __init__(self, labels: list[Any], **said: Any) -> None:
        self._items = labels
        self.__dict__.update(said)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return Image.new("RGB", (5, 4), (i, 0, 0)), self._items[i]
