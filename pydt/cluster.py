"""Executors by the name that scripts import: `from pydt.cluster import Slurm`."""

from pydt.ensemble.executors import Ray, Slurm

__all__ = ["Ray", "Slurm"]
