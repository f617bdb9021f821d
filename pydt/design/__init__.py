"""Which groups each model sees: masks drawn by rule, row by row, with frozen bits. Imports `base`."""

from pydt.design.design import (
    KINDS,
    Design,
    as_masks,
    bernoulli,
    estimand_of,
    find_clusters,
    find_repeats,
    foldover,
    random,
)
