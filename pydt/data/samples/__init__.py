"""Data that ship with pydt: printed characters, handwritten digits, textures, and a source and target with planted
truth.
"""

from pydt.data.samples import glyphs
from pydt.data.samples.patches import textures
from pydt.data.samples.planted import COLUMN, EACH, KINDS, SUBTYPE, Planted, planted
