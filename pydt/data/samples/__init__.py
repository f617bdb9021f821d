"""Data that ship with pydt: printed characters, handwritten digits, textures, and sources and targets with
planted truth.
"""

from pydt.data.samples import glyphs
from pydt.data.samples.patches import textures
from pydt.data.samples.planted import COLUMN, EACH, KINDS, SUBTYPE, Planted, planted
from pydt.data.samples.planted_by_shots import GREY, KINDS_BY_SHOTS, PlantedByShots, planted_by_shots
