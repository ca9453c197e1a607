"""The card of a published model: what it is for, its data, its errors, its licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ramjax

_DATA = {
  "mnist": "MNIST (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist)",
  "fashion_mnist": "Fashion-MNIST (Xiao et al., 2017, MIT licence)",
}
"""Sources of data, by the beginning of the name of a dataset."""


def card(name: str, model: ramjax.Predictor, facts: Mapping[str, Any]) -> str:
  """The model card, in Markdown.

  Args:
    name: name of the model.
    model: the model.
    facts: what `experiments.publish` has measured.
  """
  config, error = model.config, facts["test_error"]
  own, sizes = config.train.num_glimpses, config.model
  height, width, channels = sizes.image_shape
  source = next(
    (text for start, text in _DATA.items() if config.train.dataset.startswith(start)),
    f"your own, {facts['dataset']}",
  )
  if model.is_calibrated:
    confidence = "Confidence is p at a temperature fitted to the validation images."
  else:
    confidence = "Confidence is the largest p: no temperature was fitted."
  more = facts["more_glimpses"]
  rows = "\n".join(
    f"| stops by itself, β = {entry['beta']:g} | {entry['mean_glimpses']:.2f}"
    f" | {entry['error']:.2f} |"
    for entry in facts["dynamic"]
  )
  return f"""# {name}

A recurrent attention model for {facts["dataset"]}: images of {height}×{width} pixels,
{channels} channel{"s" * (channels > 1)}, {sizes.num_classes} classes
({", ".join(model.class_names)}). It looks at patches of
{", ".join(f"{side}×{side}" for side in sizes.patch_sides)} pixels around each place.

```python
import ramjax

answer = ramjax.pretrained("{name}")(images, beta=0.2)
```

Test error in %, {facts["num_test_images"]:,} test images, one rollout an image (M = 1):

| number of glimpses | mean | error |
|---|---|---|
| fixed, as in training | {own} | {error["float16"]:.2f} |
| fixed | {more["num_glimpses"]} | {more["error"]:.2f} |
| fixed, twice the noise after {own} | {more["num_glimpses"]} | {more["late_noise_error"]:.2f} |
{rows}

- Stored as float16. With parameters in float32 the error with N = {own} is {error["float32"]:.2f} %.
- {confidence} On the test images it
  differs from the accuracy by {facts["calibration_error"]:.3f} on average.
- Core `{sizes.core}`, {facts["num_parameters"]:,} parameters, objective
  `{config.objective.name}`, λ2 = {config.objective.lambda_intrinsic:g}. Its training took
  {facts["train_seconds"] / 60:.0f} minutes on {facts["device"]}, with all seeds of its command together.
  The model has seed {facts["seed"]}, which had the lowest validation error,
  {facts["validation_error"]:.2f} %:
  `{facts["command"]}`
- Data: {source}.
- For teaching and research. It knows its {sizes.num_classes} classes only, and answers with one
  of them whatever it is shown.
- Licence of the parameters: Apache 2.0, as ramjax.
"""
