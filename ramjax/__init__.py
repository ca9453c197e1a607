"""ramjax: the Recurrent Attention Model as active sampling of information, in JAX.

Arrays in, arrays out: the sensor, the rollout, the losses and the stopping rule are pure
functions. Use them with `jax.jit`, `jax.vmap` and `jax.grad` in other JAX code.
"""

from ramjax.calibration import (
  Reliability,
  UncertaintyFit,
  expected_calibration_error,
  fit_temperature,
  reliability,
  temper,
  uncertainty_fit,
)
from ramjax.config import (
  Config,
  ConfigError,
  EvaluationConfig,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
)
from ramjax.confusion import balanced_accuracy, class_accuracy, confusion_matrix
from ramjax.data.batches import epoch_order, epoch_orders
from ramjax.dynamic import Decision, look_until_decided
from ramjax.evaluation import (
  Evaluation,
  ReleasedEvaluation,
  evaluate,
  evaluate_as_released,
  summarize,
  summarize_as_released,
  validate,
)
from ramjax.exported import export
from ramjax.glimpse import extract_glimpse, log_polar_glimpse, patch_origin
from ramjax.losses import (
  baseline_loss,
  classification_loss,
  control_variate,
  error_fit_loss,
  generalized_advantage,
  intrinsic_loss,
  leave_one_out,
  reinforce_loss,
  reward,
  reward_to_go,
  uncertainty_loss,
)
from ramjax.many import init_train_states, train_chunks
from ramjax.model import Model
from ramjax.networks import Params, init_params, num_parameters, predict_error
from ramjax.objectives import ExtraTerm, LossParts, TermWeights, loss_parts, objective
from ramjax.optimizer import make_noise_schedule, make_optimizer, make_schedule
from ramjax.policy import (
  Policy,
  categorical_policy,
  gaussian_policy,
  learned_gaussian_policy,
  location_log_prob,
  sample_location,
  uniform_location,
)
from ramjax.prediction import Prediction, predict
from ramjax.predictor import (
  Answer,
  Predictor,
  Scanpaths,
  load,
  pretrained,
  pretrained_names,
)
from ramjax.ram import recurrent_attention_model
from ramjax.rollouts import Rollout, rollout
from ramjax.run_folder import RunError
from ramjax.scanpaths import entropy, fixation_density, information_gain
from ramjax.stopping import (
  at_stop,
  first_decision,
  is_decided,
  is_decided_as_released,
  stopping_time,
  stopping_time_as_released,
)
from ramjax.training import (
  TrainState,
  init_train_state,
  train_chunk,
  train_step,
)

__version__ = "0.1.0"

__all__ = [
  "Answer",
  "Config",
  "ConfigError",
  "Decision",
  "Evaluation",
  "EvaluationConfig",
  "ExtraTerm",
  "LossParts",
  "Model",
  "ModelConfig",
  "ObjectiveConfig",
  "Params",
  "Policy",
  "Prediction",
  "Predictor",
  "ReleasedEvaluation",
  "Reliability",
  "Rollout",
  "RunError",
  "Scanpaths",
  "TermWeights",
  "TrainConfig",
  "TrainState",
  "UncertaintyFit",
  "at_stop",
  "balanced_accuracy",
  "baseline_loss",
  "categorical_policy",
  "class_accuracy",
  "classification_loss",
  "confusion_matrix",
  "control_variate",
  "entropy",
  "epoch_order",
  "epoch_orders",
  "error_fit_loss",
  "evaluate",
  "evaluate_as_released",
  "expected_calibration_error",
  "export",
  "extract_glimpse",
  "first_decision",
  "fit_temperature",
  "fixation_density",
  "gaussian_policy",
  "generalized_advantage",
  "information_gain",
  "init_params",
  "init_train_state",
  "init_train_states",
  "intrinsic_loss",
  "is_decided",
  "is_decided_as_released",
  "learned_gaussian_policy",
  "leave_one_out",
  "load",
  "location_log_prob",
  "log_polar_glimpse",
  "look_until_decided",
  "loss_parts",
  "make_noise_schedule",
  "make_optimizer",
  "make_schedule",
  "num_parameters",
  "objective",
  "patch_origin",
  "predict",
  "predict_error",
  "pretrained",
  "pretrained_names",
  "recurrent_attention_model",
  "reinforce_loss",
  "reliability",
  "reward",
  "reward_to_go",
  "rollout",
  "sample_location",
  "stopping_time",
  "stopping_time_as_released",
  "summarize",
  "summarize_as_released",
  "temper",
  "train_chunk",
  "train_chunks",
  "train_step",
  "uncertainty_fit",
  "uncertainty_loss",
  "uniform_location",
  "validate",
]
