"""Published results, each with its source; one rollout for each image (M = 1) if known."""

from __future__ import annotations

from collections.abc import Mapping

CONVERGENCE: Mapping[str, Mapping[str, float]] = {
  "mnist": {"original": 0.615, "uncertainty": 0.625, "intrinsic": 0.635, "both": 0.64}
}
"""Training accuracy, mean over the first epoch: Figure 1 of the paper (one seed)."""

FIXED: Mapping[str, Mapping[int, str]] = {
  "original": {1: ".5749", 6: ".9912", 50: "≈ .135"},
  "uncertainty": {1: ".0958", 6: ".9905", 50: "≈ .095"},
  "intrinsic": {1: ".2694", 6: ".9908", 50: "flat"},
  "both": {1: ".1157", 6: ".9899", 50: "≈ .983"},
}
"""Test accuracy by number of glimpses: the notebook of the released code (100 epochs, one
seed). The values for 50 glimpses are read from Figure 2 of the paper."""

DYNAMIC: Mapping[str, Mapping[float, tuple[float, float]]] = {
  "both": {
    0: (1.00, 0.1157),
    0.01: (1.76, 0.5314),
    0.15: (3.19, 0.9368),
    0.3: (4.81, 0.9792),
    0.4: (8.99, 0.9873),
    0.45: (36.70, 0.9747),
  },
  "uncertainty": {
    0: (1.00, 0.0958),
    0.1: (1.90, 0.6714),
    0.2: (2.17, 0.7577),
    0.5: (2.48, 0.7986),
    0.8: (2.89, 0.9075),
    1: (3.10, 0.9588),
    5: (5.66, 0.9902),
    10: (6.43, 0.9908),
  },
}
"""Mean number of glimpses and accuracy by beta: the notebook of the released code. Its
stopping rule differs from the paper: it subtracts beta u for all classes, and a later
decision overwrites an earlier one."""

ERROR_RATES: Mapping[str, Mapping[str, Mapping[int, str]]] = {
  "mnist": {
    "Mnih et al.": {6: "1.29 to 1.12", 7: "1.07"},
    "best public, M = 1": {6: "0.8 to 1.2", 7: "0.80"},
    "best public, M unclear": {6: "0.67"},
  },
  "fashion_mnist": {"best public, M = 1": {12: "8.21"}},
  "mnist_translated_60": {
    "Mnih et al.": {4: "1.54", 6: "1.22", 8: "1.20"},
    "best public, M = 1": {6: "1.08", 8: "0.94"},
  },
  "mnist_cluttered_60": {
    "Mnih et al.": {4: "4.96", 6: "4.08", 8: "4.04"},
    "best public, M = 1": {4: "5.15", 6: "3.33", 8: "2.63"},
  },
  "mnist_cluttered_100": {
    "Mnih et al.": {4: "9.41", 6: "8.31", 8: "8.11"},
    "best public, M = 1": {8: "5.9"},
  },
}
"""Error in % by dataset and number of glimpses (the same in training and test).

Mnih et al. (2014), NIPS version, or both values if the two versions of the paper differ; they
do not state M. The best public ones that we know, read off the code of: MNIST
kevinzakka/recurrent-visual-attention (pull request 32), with seven glimpses and Fashion-MNIST
MRAM (2025, one seed; there two LSTMs and one scale), M unclear
dHonerkamp/Recurrent-Attention-Model; canvases slundqui/tfRAM. Left out, since another task:
PrincipalComponent-zz/ram on 100x100 pixels (2.68, M = 10, four pieces of clutter), and 2.13 on
60x60 (M = 10, the digit over the clutter, the epoch chosen on test images)."""
