"""Learned optimizers, and the meta-training of anything with hyper-parameters."""

from lopt.augmentation import rescale_weights as rescale_weights
from lopt.base import LearnedOptimizer as LearnedOptimizer
from lopt.celo import Celo as Celo
from lopt.celo import CeloState as CeloState
from lopt.celo import celo as celo
from lopt.celo2 import Celo2 as Celo2
from lopt.celo2 import celo2 as celo2
from lopt.celo2 import celo2_labels as celo2_labels
from lopt.celo2_direction import Celo2State as Celo2State
from lopt.celo2_direction import scale_by_celo2 as scale_by_celo2
from lopt.estimators import PES as PES
from lopt.estimators import FullES as FullES
from lopt.estimators import NoiseReuseES as NoiseReuseES
from lopt.estimators import TruncatedBackprop as TruncatedBackprop
from lopt.estimators import TruncatedES as TruncatedES
from lopt.from_pretrained import from_pretrained as from_pretrained
from lopt.heldout import HeldOut as HeldOut
from lopt.learned_schedule import LearnedSchedule as LearnedSchedule
from lopt.learned_schedule import LearnedScheduleState as LearnedScheduleState
from lopt.learned_schedule import celo_adam as celo_adam
from lopt.learned_schedule import (
    scale_by_learned_schedule as scale_by_learned_schedule,
)
from lopt.meta_optimizer import WarmupCosineAdamW as WarmupCosineAdamW
from lopt.meta_training import Interrupted as Interrupted
from lopt.meta_training import MetaTraining as MetaTraining
from lopt.meta_training import meta_train as meta_train
from lopt.mulo import mulo as mulo
from lopt.parallel import particle_mesh as particle_mesh
from lopt.small_fc import SmallFC as SmallFC
from lopt.small_fc import SmallFCState as SmallFCState
from lopt.small_fc import small_fc as small_fc
from lopt.truncation import Constant as Constant
from lopt.truncation import LogUniform as LogUniform
from lopt.unroll import Unroll as Unroll
from lopt.velo import VeLO as VeLO
from lopt.velo import VeLOState as VeLOState
from lopt.velo import velo as velo
from lopt.weights import Pretrained as Pretrained
from lopt.weights import load_pretrained as load_pretrained
from lopt.weights import save_pretrained as save_pretrained

pes = PES
es = TruncatedES
full_es = FullES
noise_reuse_es = NoiseReuseES
truncated_backprop = TruncatedBackprop
