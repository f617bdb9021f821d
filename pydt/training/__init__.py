"""One row: train a source model on what a mask keeps, transfer it, give four numbers per target example. The room
of torch. Imports `base` and `data`.
"""

from pydt.training.networks import Halved
from pydt.training.source import Recipe, Trained, steps_of, train
from pydt.training.transfer.run import FineTune, Task, transfer, trial
