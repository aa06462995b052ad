"""Estimators of the gradient of a meta-loss, behind one interface."""

from lopt.estimators.base import Estimate as Estimate
from lopt.estimators.base import Estimator as Estimator
from lopt.estimators.es import FullES as FullES
from lopt.estimators.es import TruncatedES as TruncatedES
from lopt.estimators.noise_reuse import NoiseReuseES as NoiseReuseES
from lopt.estimators.pes import PES as PES
from lopt.estimators.truncated_backprop import TruncatedBackprop as TruncatedBackprop
