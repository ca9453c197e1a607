"""A model of one's own, as `--model=own_models:make` names it: a GRU in Flax Linen."""

import flax.linen as nn
import jax
import jax.numpy as jnp

import ramjax


class Looker(nn.Module):
  """Counts its glimpses in the state, beside the state of its GRU."""

  hidden_size: int
  num_classes: int

  def setup(self):
    self.what, self.where = nn.Dense(self.hidden_size), nn.Dense(self.hidden_size)
    self.cell = nn.GRUCell(self.hidden_size)
    self.mean, self.value = nn.Dense(2), nn.Dense(1)
    self.classes = nn.Dense(self.num_classes)

  def start(self):
    return {"cell": jnp.zeros(self.hidden_size), "seen": jnp.int32(0)}

  def step(self, state, glimpse, location):
    inputs = nn.relu(self.what(glimpse.ravel()) + self.where(location))
    cell, hidden = self.cell(state["cell"], inputs)
    return {"cell": cell, "seen": state["seen"] + 1}, hidden

  def locate(self, hidden):
    return self.mean(hidden)

  def read(self, hidden):
    return self.classes(hidden), self.value(jax.lax.stop_gradient(hidden))[0]

  def __call__(self, glimpse, location):
    _, hidden = self.step(self.start(), glimpse, location)
    return self.locate(hidden), self.read(hidden)


def make(config):
  """The model, with the sizes, the retina and the policy of a configuration."""
  looker = Looker(config.hidden_size, config.num_classes)
  paper = ramjax.recurrent_attention_model(config)
  image, centre = jnp.zeros(config.image_shape), jnp.zeros(2)
  return ramjax.Model.from_methods(
    init=lambda key: looker.init(key, paper.sensor(image, centre), centre),
    call=lambda params, name, *args: looker.apply(params, *args, method=name),
    sensor=paper.sensor,
    policy=paper.policy,
  )


def make_nothing(config):
  """No model."""
  return config
