"""The methods of `influences`: one module each, and its line in `ESTIMATORS`."""

from pydt.estimation.estimators.common import Estimator
from pydt.estimation.estimators.difference import DIFFERENCE
from pydt.estimation.estimators.lasso import LASSO
from pydt.estimation.estimators.ols import OLS
from pydt.estimation.estimators.ridge import RIDGE

ESTIMATORS: dict[str, Estimator] = {one.name: one for one in (DIFFERENCE, OLS, RIDGE, LASSO)}
