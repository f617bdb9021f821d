"""The scratch floor: an untrained network, with a rate and a length of its own where it is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass

from pydt.base import ConfigError, real, whole


@dataclass(frozen=True)
class Scratch:
    """How untrained networks are fine-tuned; they want other settings than pre-trained ones.

    Attributes:
        lr, epochs: instead of those of `FineTune`; None: as the task says.

    Raises:
        ConfigError: a value is out of range.
    """

    lr: float | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.lr is not None:
            object.__setattr__(self, "lr", real(self.lr, "lr", "Scratch", above=0))
        if self.epochs is not None:
            object.__setattr__(self, "epochs", whole(self.epochs, "epochs", "Scratch", 1, error=ConfigError))
