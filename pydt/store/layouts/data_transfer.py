"""The result files of "A Data-Based Perspective on Transfer Learning" (Jain et al., CVPR 2023), as its code writes.

    {TARGET}/{fixed|full}/{KIND}.npy    (models, test examples): float16, bool of "is_corrects"; "acc" (models,)
    {TARGET}/{fixed|full}/_completed.npy    bool (models,): rows that were written
    train_masks.npy                     (models, classes or images of the source)
    {TARGET}.pt                         summary of class subsets: a pickle of "class_binary_mask", int32 (models, 1000),
                                        and in "transfer_results" and "transfer_results_full" a tensor of each kind

What it calls softmax_logits are probabilities of the correct class; acc and auroc are in percent.
"""

from __future__ import annotations

from pydt.store.ensemble_files import Read
from pydt.store.layouts.common import Kind, Layout

_CLASSES = 1000  # of the source


def _named(outputs: Read) -> str:
    """Target, transfer and kind by the file's folders; of another file its member's name."""
    transfer = outputs.path.parent.name
    if outputs.path.suffix == ".npy" and transfer in ("fixed", "full"):
        return f"{outputs.path.parent.parent.name} {transfer} {outputs.key}"
    return outputs.key


DATA_TRANSFER = Layout(
    kinds={
        "is_corrects": Kind("points of accuracy", 100.0),
        "acc": Kind("points of accuracy"),
        "auroc": Kind("points of AUROC"),
        "softmax_logits": Kind("points of probability", 100.0),
        "softmax_margins": Kind("points of probability", 100.0),
        "raw_logits": Kind("logit units"),
        "raw_margins": Kind("margin units"),
    },
    refused={"predictions": "they are numbers of classes: give is_corrects or margins"},
    by=lambda groups: "class" if groups == _CLASSES else "example",
    named=_named,
)
