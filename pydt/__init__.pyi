"""The public names: each is imported from its room when it is first used."""

import types

from . import data as data
from . import design as design
from . import store as store
from .analyses import Counterfactual as Counterfactual
from .analyses import Kept as Kept
from .analyses import analyse as analyse
from .analyses import brittleness as brittleness
from .analyses import compare_outputs as compare_outputs
from .analyses import compare_tasks as compare_tasks
from .analyses import counterfactual as counterfactual
from .analyses import failures as failures
from .analyses import influence_by_shots as influence_by_shots
from .analyses import keep as keep
from .analyses import leaks as leaks
from .analyses import misleading as misleading
from .analyses import ranking as ranking
from .analyses import removal_curve as removal_curve
from .analyses import report as report
from .analyses import share as share
from .analyses import stability as stability
from .analyses import subpopulations as subpopulations
from .base import PydtError as PydtError
from .data import Dataset as Dataset
from .data import Groups as Groups
from .data import Target as Target
from .data.loading import Augment as Augment
from .data.loading import Loader as Loader
from .design import Design as Design
from .ensemble import Command as Command
from .ensemble import Function as Function
from .ensemble import Plan as Plan
from .ensemble import Ray as Ray
from .ensemble import RowInput as RowInput
from .ensemble import Slurm as Slurm
from .ensemble import choose_rates as choose_rates
from .ensemble import cost as cost
from .ensemble import read_plan as read_plan
from .ensemble import run as run
from .ensemble import write_plan as write_plan
from .estimation import StoppingRule as StoppingRule
from .estimation import compare_alphas as compare_alphas
from .estimation import influences as influences
from .estimation import lds as lds
from .estimation import models_for_effect as models_for_effect
from .estimation import models_for_stderr as models_for_stderr
from .estimation import plan_models as plan_models
from .estimation import prediction_test as prediction_test
from .estimation import repeat_rows as repeat_rows
from .store import Measure as Measure
from .store import Store as Store
from .studies import Mixture as Mixture
from .studies import PublicModel as PublicModel
from .studies import Source as Source
from .studies import Study as Study
from .studies import mixture_plan as mixture_plan
from .studies import mixtures_by_shots as mixtures_by_shots
from .studies import read_study as read_study
from .studies import run_study as run_study
from .studies import study_report as study_report
from .training import Recipe as Recipe
from .training import Task as Task

__version__: str

errors: types.ModuleType
estimate: types.ModuleType
examples: types.ModuleType
glyphs: types.ModuleType
lab: types.ModuleType
models: types.ModuleType
train: types.ModuleType
transfer: types.ModuleType
