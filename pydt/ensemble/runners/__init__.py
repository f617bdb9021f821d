"""Rows that are not pydt's own training: a function or a command of the user's, as the recipe of a plan."""

from pydt.ensemble.runners.command import Command
from pydt.ensemble.runners.function import Function
