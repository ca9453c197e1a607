"""ramjax: the Recurrent Attention Model as active sampling of information, in JAX.

Arrays in, arrays out: the sensor, the unroll, the losses and the stopping rule are
pure functions that can be jitted, vmapped and differentiated in other JAX code.
"""

from ramjax.calibration import (
  Reliability,
  UncertaintyFit,
  expected_calibration_error,
  reliability,
  uncertainty_fit,
)
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.evaluation import Evaluation, evaluate, validate
from ramjax.glimpse import extract_glimpse, patch_origin
from ramjax.losses import (
  baseline_loss,
  classification_loss,
  error_fit_loss,
  intrinsic_loss,
  reinforce_loss,
  reward,
  uncertainty_loss,
)
from ramjax.networks import Params, init_params, predict_error
from ramjax.objective import LossParts, loss_parts, objective
from ramjax.policy import location_log_prob, sample_location, uniform_location
from ramjax.rollout import Rollout, rollout
from ramjax.stopping import at_stop, is_decided, stopping_time
from ramjax.training import (
  TrainState,
  epoch_order,
  init_train_state,
  make_optimizer,
  train_chunk,
  train_step,
)

__version__ = "0.1.0"

__all__ = [
  "Config",
  "ConfigError",
  "Evaluation",
  "LossParts",
  "ModelConfig",
  "ObjectiveConfig",
  "Params",
  "Reliability",
  "Rollout",
  "TrainConfig",
  "TrainState",
  "UncertaintyFit",
  "at_stop",
  "baseline_loss",
  "classification_loss",
  "epoch_order",
  "error_fit_loss",
  "evaluate",
  "expected_calibration_error",
  "extract_glimpse",
  "init_params",
  "init_train_state",
  "intrinsic_loss",
  "is_decided",
  "location_log_prob",
  "loss_parts",
  "make_optimizer",
  "objective",
  "patch_origin",
  "predict_error",
  "reinforce_loss",
  "reliability",
  "reward",
  "rollout",
  "sample_location",
  "stopping_time",
  "train_chunk",
  "train_step",
  "uncertainty_fit",
  "uncertainty_loss",
  "uniform_location",
  "validate",
]
