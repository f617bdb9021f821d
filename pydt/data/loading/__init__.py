"""Batches of a masked subset, raw or encoded images, on this machine's memory or a GPU's."""

from pydt.data.loading.augment import Augment
from pydt.data.loading.loader import Batch, Loader, kept_ids
