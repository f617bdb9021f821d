"""One file per way to make a source model, and one line here; see `Method`."""

from __future__ import annotations

from pydt.training.methods import clip, supervised
from pydt.training.methods.common import Method

METHODS: dict[str, Method] = {
    "supervised": Method(supervised.learn, check=supervised.check),
    "clip": Method(clip.learn, ("clip",), clip.start, clip.check, splits=False, fits=clip.fits, captions=True),
    "none": Method(None),
}
PLANNED = ("simclr", "checkpoint")
"""Names kept for methods to come."""
