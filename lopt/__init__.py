"""Learned optimizers, and the meta-training of anything with hyper-parameters."""
