"""From a plan to a full store: any executor computes missing rows, only the driver writes. Imports `base`, `data`,
`design`, `store`, `training` and `estimation`.
"""

from pydt.ensemble.data_remarks import remarks
from pydt.ensemble.driver import run, run_rows
from pydt.ensemble.plan import Plan
from pydt.ensemble.plan_cost import announce, cost
from pydt.ensemble.plan_file import PlanFile, read_plan, write_plan
from pydt.ensemble.row import Runner, run_row
from pydt.ensemble.sample_plan import MODELS, SAMPLE_SETTINGS, quickstart_plan
