"""The files of "Datamodels" (Ilyas et al., ICML 2022): released arrays, and the folder that its training code writes.

    train_masks_{PCT}pct.npy    bool (models, training examples)
    test_margins_{PCT}pct.npy   float16 (models, test examples), train_margins_{PCT}pct.npy likewise
    test_logits_{PCT}pct.npy    float16 (models, test examples, classes): no number for each example

    masks.npy, margins.npy      of the training code: as its spec.json says, bool and float16 in its example
    _completed.npy              bool (models,): rows that were written

The fitted datamodels (.pt) are pickles and no ensemble.
"""

from __future__ import annotations

from pydt.store.layouts.common import Kind, Layout

DATAMODELS = Layout(
    kinds={"margins": Kind("margin units")},
    refused={"logits": "give margins, or the logit of the correct class: one number for each example"},
    by=lambda groups: "example",
    named=lambda outputs: outputs.key,
)
