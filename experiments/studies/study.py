"""Studies: variants of a run, several seeds each, trained side by side and compared.

A script says which variants there are; here they are trained, in as few programs as
there can be, and scored. What is done is kept, so that a study goes on where it was
interrupted.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from experiments.cli import flags
from experiments.reporting import tables
from experiments.runs import files, side_by_side
from experiments.runs.provenance import provenance
from experiments.studies import scores
from ramjax import data
from ramjax.config import Config, differing_fields


@dataclasses.dataclass(frozen=True)
class Variant:
  """A way to train and to evaluate, which is tried with every seed.

  Attributes:
    name: what the table calls it.
    config: how it is trained; its seed is not used.
    glimpses: with what numbers of glimpses it is evaluated.
    betas: with what exploration rates.
    num_samples: how many rollouts are averaged, M.
    location_policy: `sample` or `mean`, in evaluation.
  """

  name: str
  config: Config
  glimpses: tuple[int, ...]
  betas: tuple[float, ...] = ()
  num_samples: int = 1
  location_policy: str = "sample"

  def with_seed(self, seed: int) -> Config:
    """The run of a seed."""
    train = dataclasses.replace(self.config.train, seed=seed)
    return dataclasses.replace(self.config, train=train)


def main(name: str, variants: Callable[[Config], Sequence[Variant]]) -> None:
  """Trains, scores and tells of the study that the flags ask for.

  Args:
    name: what it is called: its results are `<name>.json` in --workdir, which is
      `runs/<name>` by default.
    variants: from the configuration of the flags to its variants, of which the first is
      the one that the others are told apart from.
  """
  options = flags.FLAGS
  flags.check_at_least_one("num_epochs", "steps_per_call")
  variants(flags.config_from_flags())  # before the data are looked for
  seeds = flags.seeds()
  side_by_side.start_devices()
  config, dataset = flags.load_run()
  folder = pathlib.Path(options.workdir or f"runs/{name}")
  print(f"{dataset.name} from {dataset.source}; writing to {folder}", flush=True)
  found = conduct(
    variants(config), seeds, dataset, folder, steps_per_call=options.steps_per_call
  )
  results = {
    "study": name,
    "seeds": seeds,
    "config": config.to_dict(),
    **provenance(),
    "variants": found,
  }
  target = folder / f"{name}.json"
  files.write_json(target, results)
  print(tables.TABLES[name](results))
  print(f"written to {target}")


def conduct(
  variants: Sequence[Variant],
  seeds: Sequence[int],
  dataset: data.Dataset,
  folder: pathlib.Path,
  *,
  steps_per_call: int,
) -> list[dict[str, Any]]:
  """Trains and scores every variant with every seed.

  Args:
    variants: the variants; those that are trained alike are trained once.
    seeds: the seeds.
    dataset: what they are trained on and judged by.
    folder: where it is kept what is done.
    steps_per_call: steps between two looks of a training.

  Returns:
    For each variant `name`, `settings`, the fields in which it differs from the first
    one, and `runs`: for each seed what `experiments.scores.score` has, and the train
    accuracy of the last epoch.
  """
  programs: dict[Config, list[Variant]] = {}
  for variant in variants:
    programs.setdefault(side_by_side.common_part(variant.config), []).append(variant)
  runs: dict[str, list[dict[str, Any]]] = {}
  for number, group in enumerate(programs.values(), start=1):
    print(
      f"program {number}/{len(programs)}: {', '.join(v.name for v in group)}",
      flush=True,
    )
    runs |= _train_and_score(
      group, seeds, dataset, folder / f"program_{number}", steps_per_call=steps_per_call
    )
  return [
    {
      "name": variant.name,
      "settings": {
        name: ours
        for name, (ours, _) in differing_fields(
          variant.config, variants[0].config
        ).items()
      },
      "num_samples": variant.num_samples,
      "location_policy": variant.location_policy,
      "runs": runs[variant.name],
    }
    for variant in variants
  ]


def _train_and_score(
  group: Sequence[Variant],
  seeds: Sequence[int],
  dataset: data.Dataset,
  folder: pathlib.Path,
  *,
  steps_per_call: int,
) -> dict[str, list[dict[str, Any]]]:
  """The runs of the variants of one program, by the name of the variant."""
  configs = list(dict.fromkeys(v.with_seed(seed) for v in group for seed in seeds))
  mesh = side_by_side.make_mesh(len(configs))
  trained = side_by_side.train(
    configs, dataset, folder, mesh=mesh, steps_per_call=steps_per_call
  )
  device = mesh.devices.flat[0]
  began = time.perf_counter()
  found: dict[str, list[dict[str, Any]]] = {}
  for variant in group:
    found[variant.name] = []
    for seed in seeds:
      config = variant.with_seed(seed)
      run = configs.index(config)
      params = jax.device_put(
        jax.tree.map(lambda leaf, run=run: leaf[run], trained.params), device
      )
      accuracy = trained.accuracy[run]
      last_epoch = accuracy[-(len(accuracy) // config.train.num_epochs) :]
      scored = scores.score(
        config,
        params,
        dataset,
        glimpses=variant.glimpses,
        betas=variant.betas,
        num_samples=variant.num_samples,
        location_policy=variant.location_policy,
      )
      found[variant.name].append(
        {"seed": seed, "train_accuracy": scores.rounded(last_epoch.mean()), **scored}
      )
  print(f"scored in {time.perf_counter() - began:.1f} s", flush=True)
  return found
