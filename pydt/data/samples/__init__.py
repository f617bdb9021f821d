"""Data that ship with pydt."""

from pydt.data.samples import glyphs
