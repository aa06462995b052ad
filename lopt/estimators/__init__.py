"""Estimators of the gradient of a meta-loss, behind one interface."""

from lopt.estimators.base import Estimate as Estimate
from lopt.estimators.base import Estimator as Estimator
