"""Learned optimizers, and the meta-training of anything with hyper-parameters."""

from lopt.heldout import HeldOut as HeldOut
from lopt.meta_optimizer import MetaAdamW as MetaAdamW
from lopt.meta_training import Interrupted as Interrupted
from lopt.meta_training import MetaTraining as MetaTraining
from lopt.meta_training import meta_train as meta_train
from lopt.parallel import particle_mesh as particle_mesh
