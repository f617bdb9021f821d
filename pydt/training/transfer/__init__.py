"""One module per way to transfer a source model to a target."""

from pydt.training.transfer.run import FineTune, Task, transfer
