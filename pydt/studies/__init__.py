"""Which source to pre-train on, how large, by which method, and when it stops mattering. Imports every
room but `cli`.
"""

from pydt.studies.sources import Mixture, Source, as_source
