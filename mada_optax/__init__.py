"""Optimizers that adapt their own hyper-parameters while they train."""

from mada_optax.family import MadaHyperparams as MadaHyperparams
from mada_optax.hypergradient import HypergradientState as HypergradientState
from mada_optax.hypergradient import hypergradient as hypergradient
from mada_optax.mada import hyper_adam as hyper_adam
from mada_optax.mada import mada as mada
from mada_optax.mada import mada_final_state as mada_final_state
from mada_optax.mada import scale_by_mada as scale_by_mada
from mada_optax.members import adam as adam
from mada_optax.members import adan as adan
from mada_optax.members import amsgrad as amsgrad
from mada_optax.members import avgrad as avgrad
from mada_optax.members import lion as lion
from mada_optax.members import yogi as yogi
from mada_optax.meta_adamw.alias import meta_adamw as meta_adamw
from mada_optax.meta_adamw.meta_step import MetaAux as MetaAux
from mada_optax.meta_adamw.optimizer import MetaAdamW as MetaAdamW
from mada_optax.meta_adamw.optimizer import meta_update as meta_update
from mada_optax.meta_adamw.transform import MetaAdamWState as MetaAdamWState
from mada_optax.meta_adamw.uncertainty import (
    uncertainty_weighting as uncertainty_weighting,
)
from mada_optax.transform import MadaState as MadaState
from mada_optax.transform import diagnostics as diagnostics
