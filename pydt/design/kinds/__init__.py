"""The kinds of design, by name: one file each, and one line here."""

from pydt.design.kinds.bernoulli import BERNOULLI
from pydt.design.kinds.common import Kind
from pydt.design.kinds.fixed_size import RANDOM, STRATIFIED
from pydt.design.kinds.foldover import FOLDOVER

KINDS: dict[str, Kind] = {
    "random": RANDOM,
    "stratified": STRATIFIED,
    "bernoulli": BERNOULLI,
    "foldover": FOLDOVER,
    "explicit": Kind("explicit", ("masks",)),
}
