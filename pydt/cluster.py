"""Executors by the name that scripts import: `from pydt.cluster import Slurm`."""

from pydt.ensemble import Ray, Slurm

__all__ = ["Ray", "Slurm"]
