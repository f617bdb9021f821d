"""Decode or shard a data set once: one `.npy` array, or tar archives."""

from pydt.data.packing.array import pack
from pydt.data.packing.tar import pack_tar
