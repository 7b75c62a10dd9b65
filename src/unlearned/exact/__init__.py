"""Unlearning in closed form, for models small enough that a theorem says what is left: no loop, no seed, no retraining to compare with.

Block, Mokhtari, Shakkottai, "Machine Unlearning under Overparameterization", NeurIPS 2025, arXiv 2505.22601: among all weights that fit the retained data, a
model trained without the forgotten data should have the least complexity R. For linear models, deep linear networks and two-layer networks, a change of the
trained weights that keeps retained outputs leads there exactly. Each function checks the assumptions of its theorem on the model and the data that it is
given, and refuses with every reason where they do not hold.
"""
