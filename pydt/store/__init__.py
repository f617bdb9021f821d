"""Finished rows as files: each whole or absent, also after a kill. Knows rows and plans as records, not data sets or
networks. Imports `base` and `design`.
"""

from pydt.store.bank import KEEP, KEEP_BYTES, Bank, Kept
from pydt.store.choices import read_choice, read_choices, write_choice
from pydt.store.compact import FEWEST, compact
from pydt.store.descriptions import HALVES, encoded_draws
from pydt.store.export import export
from pydt.store.imported import IMPORTED
from pydt.store.learning_check import Weak, at_chance, weak, weak_rows
from pydt.store.log import row_seconds
from pydt.store.measure import Measure
from pydt.store.merge import merge
from pydt.store.notes import stored_remarks, write_remarks
from pydt.store.outputs import (
    Unit,
    averaged,
    derive,
    metric_output,
    outputs_of,
    per_draw,
    primitives_of,
    unit_of,
    units_of,
)
from pydt.store.plan_changes import changes, shared
from pydt.store.plan_names import PlanName, checked_name, name_plan, read_name, read_names, usual_name
from pydt.store.plan_record import MOST_ROWS, Drawn, Record
from pydt.store.rows import FACTS, VALUE, Outcome, Row, checked, metric_of
from pydt.store.status import status
from pydt.store.store import Store
from pydt.store.verify import verify
