"""One file per way to transfer a source model to a target; `modes.py` names them."""

from pydt.training.transfer.finetune import FineTune
from pydt.training.transfer.run import transfer
from pydt.training.transfer.task import Task
from pydt.training.transfer.zero_shot import ZeroShot
