"""Influences with standard errors, from masks and outputs; tests of a whole ranking; how many models are needed.
numpy and the compiled core, no torch, no data sets. Imports `base`, `design` and `store`.
"""

from pydt.estimation.agreement_without_noise import TrueAgreement, true_agreement, true_agreements
from pydt.estimation.alpha_pilots import compare_alphas
from pydt.estimation.arm_pairs import all_pairs
from pydt.estimation.arm_spread import Spread, spread
from pydt.estimation.crossed_mean import Crossed, crossed
from pydt.estimation.datamodelling_score import Score, lds, repeat_rows
from pydt.estimation.estimators import ESTIMATORS
from pydt.estimation.fit import Fit
from pydt.estimation.from_store import mean_output, method_for, overall
from pydt.estimation.influence import MANY, best_method, influences
from pydt.estimation.joint_influence import JointFit, Trend, joint_influences
from pydt.estimation.mask_coverage import uncompared
from pydt.estimation.multiple_testing import benjamini_hochberg, benjamini_yekutieli, holm, p_values, upper_tail
from pydt.estimation.order_agreement import RankAgreement, kendall, rank_agreement
from pydt.estimation.power import ModelPlan, few_masks, models_for_effect, models_for_stderr, plan_models
from pydt.estimation.prediction_test import PredictionTest, global_test, prediction_test
from pydt.estimation.row_failures import failure_test
from pydt.estimation.row_seeds import RowSeeds, crossed_apart
from pydt.estimation.size_equivalence import EquivalentSize, equivalent_size
from pydt.estimation.stopping import Look, StoppingRule, unmet
from pydt.estimation.variance_parts import Share, ShareDifference, VarianceShares, variance_shares
from pydt.estimation.wilson_interval import wilson
