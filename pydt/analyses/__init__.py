"""Questions asked of a finished ensemble, one module each, each giving a Page; those that retrain keep their rows
in the same store. Imports every room but `cli` and `studies`.
"""

from pydt.analyses.brittleness import brittleness
from pydt.analyses.catalogue import ANALYSES, analyse, chosen, trainings
from pydt.analyses.counterfactual import QUICK, Counterfactual, counterfactual, detectable, numbers_to_drop, retrainings
from pydt.analyses.failures import failures
from pydt.analyses.kept_list import Kept, keep
from pydt.analyses.leakage.leaks import leaks
from pydt.analyses.misleading import misleading
from pydt.analyses.output_comparison import compare_outputs
from pydt.analyses.ranking import ranking
from pydt.analyses.removal import removal_curve
from pydt.analyses.report import report
from pydt.analyses.share import share
from pydt.analyses.shots import ByShots, influence_by_shots
from pydt.analyses.stability import stability
from pydt.analyses.subpopulations import subpopulations
from pydt.analyses.two_targets import TaskComparison, compare_tasks
