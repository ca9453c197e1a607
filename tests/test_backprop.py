"""The hand-written gradient equals autodiff of the plain scan."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax.objectives import objective

pytestmark = pytest.mark.usefixtures("exact_products")

IMAGES = jax.random.normal(jax.random.key(1), (5, 20, 24, 1))
LABELS = jnp.array([0, 1, 2, 3, 4])


def make_loss(num_glimpses=6, num_scales=1, core="rnn", **options):
  """A loss of parameters, images and first locations, and parameters for it."""
  model = ramjax.ModelConfig(
    image_shape=(20, 24, 1),
    hidden_size=32,
    branch_size=16,
    num_scales=num_scales,
    core=core,
  )
  params = ramjax.init_params(jax.random.key(0), model)

  def loss(params, images, first_location):
    result = ramjax.rollout(
      jax.random.key(2),
      params,
      images,
      model=model,
      num_glimpses=num_glimpses,
      first_location=first_location,
      **options,
    )
    config = ramjax.ObjectiveConfig(name="both", lambda_uncertainty=1e-2)
    return objective(params, result, LABELS, model=model, objective_config=config)[0]

  return loss, params


@pytest.mark.parametrize("core", ["rnn", "lstm"])
@pytest.mark.parametrize(
  ("num_glimpses", "num_scales"), [(1, 1), (2, 2), (6, 1), (6, 4)]
)
def test_parameter_gradient_equals_autodiff(num_glimpses, num_scales, core):
  """In every layer, also for a single glimpse."""
  sizes = {"num_glimpses": num_glimpses, "num_scales": num_scales, "core": core}
  by_hand, params = make_loss(**sizes)
  plain, _ = make_loss(**sizes, autodiff=True)
  first = jnp.zeros((5, 2))
  expected = jax.grad(plain)(params, IMAGES, first)
  found = jax.grad(by_hand)(params, IMAGES, first)
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=2e-6)
  assert jnp.abs(found.ram["glimpse"]["patch"]["kernel"]).max() > 1e-3


@pytest.mark.parametrize("autodiff", [False, True])
@pytest.mark.parametrize("core", ["rnn", "lstm"])
def test_a_loop_that_is_written_out_has_the_same_gradient(core, autodiff, monkeypatch):
  """As on an accelerator; a longer one stays a loop."""

  def loops_and_gradient(num_glimpses):
    loss, params = make_loss(num_glimpses, core=core, autodiff=autodiff)
    gradient = jax.value_and_grad(loss)
    inputs = params, IMAGES, jnp.zeros((5, 2))
    loops = re.findall(r"\bunroll=1\b", str(jax.make_jaxpr(gradient)(*inputs)))
    return len(loops), jax.jit(gradient)(*inputs)

  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  loops, expected = loops_and_gradient(6)
  assert loops == 2
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  loops, found = loops_and_gradient(6)
  assert loops == 0
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-7)
  assert loops_and_gradient(20)[0] == 2


@pytest.mark.parametrize("argument", [1, 2])
def test_gradient_in_images_and_first_locations_equals_autodiff(argument):
  """A saliency map must not be zero without a warning."""
  by_hand, params = make_loss()
  plain, _ = make_loss(autodiff=True)
  inputs = params, IMAGES, jnp.full((5, 2), 0.1)
  expected = jax.grad(plain, argument)(*inputs)
  found = jax.grad(by_hand, argument)(*inputs)
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
  assert jnp.abs(found).max() > 1e-4


def test_vmap_over_models_gives_the_gradient_of_each():
  by_hand, params = make_loss()
  gradient = functools.partial(jax.grad(by_hand), images=IMAGES)
  gradient = functools.partial(gradient, first_location=jnp.zeros((5, 2)))
  other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
  both = jax.vmap(gradient)(jax.tree.map(lambda *p: jnp.stack(p), params, other))
  expected = jax.tree.map(lambda *g: jnp.stack(g), gradient(params), gradient(other))
  chex.assert_trees_all_close(both, expected, rtol=1e-4, atol=2e-6)


def test_lstm_gradient_equals_finite_differences():
  """Along one direction of the core's parameters, where all functions are smooth.

  With a zero location network, locations do not depend on the parameters. The
  classification loss has no stopped gradients.
  """
  model = ramjax.ModelConfig(
    image_shape=(20, 24, 1), hidden_size=32, branch_size=16, core="lstm"
  )
  params = ramjax.init_params(jax.random.key(0), model)
  blind = jax.tree.map(jnp.zeros_like, params.ram["location"])

  @jax.jit
  def loss(core):
    ram = {**params.ram, "core": core, "location": blind}
    result = ramjax.rollout(
      jax.random.key(2),
      params._replace(ram=ram),
      IMAGES,
      model=model,
      num_glimpses=4,
    )
    return ramjax.classification_loss(result.logits_t[-1], LABELS).mean()

  core = params.ram["core"]
  gradient = jax.jit(jax.grad(loss))(core)
  length = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
  step = jax.tree.map(lambda g: 0.1 * g / length, gradient)
  ahead, behind = (
    loss(jax.tree.map(move, core, step)) for move in (jnp.add, jnp.subtract)
  )
  assert length > 0.01
  np.testing.assert_allclose((ahead - behind) / 0.2, length, rtol=1e-2)


def test_forward_mode_needs_autodiff():
  """Without `autodiff=True`, JAX raises an error."""
  plain, params = make_loss(autodiff=True)
  by_hand, _ = make_loss()
  first = jnp.zeros((5, 2))
  tangent = jax.tree.map(jnp.ones_like, params)
  jax.jvp(lambda p: plain(p, IMAGES, first), (params,), (tangent,))
  with pytest.raises(TypeError, match="custom_vjp"):
    jax.jvp(lambda p: by_hand(p, IMAGES, first), (params,), (tangent,))
