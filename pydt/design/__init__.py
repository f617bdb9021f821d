"""Which groups each model sees: masks drawn by rule, row by row, with frozen bits. Imports `base`."""

from pydt.design.design import Design, bernoulli, draw, foldover, random
from pydt.design.kinds import KINDS
from pydt.design.masks import as_masks, estimand_of, find_clusters, find_repeats
