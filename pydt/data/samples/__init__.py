"""Data that ship with pydt: printed characters and handwritten digits, and a source and target with planted truth."""

from pydt.data.samples import glyphs
from pydt.data.samples.planted import COLUMN, EACH, KINDS, SUBTYPE, Planted, planted
