"""One row: train a source model on what a mask keeps, transfer it, give four numbers per target example. The room
of torch. Imports `base` and `data`.
"""

from pydt.training.kept import Absent, features_of, from_features, kept_bytes, learns, restore, serve, weights_of
from pydt.training.methods.checkpoint import Checkpoint
from pydt.training.methods.clip import CLIP
from pydt.training.methods.none import Scratch
from pydt.training.methods.simclr import SimCLR
from pydt.training.recipe import BUDGETS, Recipe, steps_of
from pydt.training.source import train
from pydt.training.trained import Trained
from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.modes import MODES
from pydt.training.transfer.run import transfer
from pydt.training.transfer.task import Task
from pydt.training.transfer.zero_shot import ZeroShot
from pydt.training.trial_step import trial
