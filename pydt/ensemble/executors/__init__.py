"""Where rows are computed: processes of this machine, Ray, Slurm."""

from pydt.ensemble.executors.local import Processes, WorkerDied
from pydt.ensemble.executors.ray import Ray
from pydt.ensemble.executors.slurm import Slurm
