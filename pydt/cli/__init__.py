"""The command line: arguments in, words and exit codes out. Imports any room; no room imports it."""

from pydt.cli.app import main
