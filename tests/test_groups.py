"""Only runs that differ in nothing but the seed are one group."""

import pytest

from experiments.reporting.groups import group_runs, with_groups
from ramjax.config import Config

FIRST, SECOND = "a" * 64, "b" * 64


def run(seed=0, *, dataset="mnist", entry=(), **parts):
  """An entry of a results file, of a run with some settings of the configuration."""
  config = Config().replace(**parts).replace(train={"seed": seed})
  return {
    "config": config.to_dict(),
    "seed": seed,
    "objective": config.objective.name,
    "dataset": dataset,
    **dict(entry),
  }


def own(seed, path, checksum, **more):
  """A run on images of one's own, in a folder that is called cells."""
  train = {"dataset": f"folder:{path}", "data_sha256": checksum}
  return run(seed, dataset="folder_cells", train=train, **more)


def test_seeds_are_pooled_and_objectives_are_in_the_order_of_the_paper():
  runs = [run(0), run(1), run(0, objective={"name": "original"}), run(2)]
  original, both = group_runs(runs)
  assert (original.label, both.label) == ("original", "both")
  assert both.labelled == "both (n = 3)"
  assert both.runs == [runs[0], runs[1], runs[3]]


def test_all_of_the_noise_is_what_results_have_that_do_not_name_it():
  named = {"location_noise": 1.0}
  halved, late = ({"location_noise": noise} for noise in (0.5, [1.0, 2.0]))
  groups = group_runs(
    [run(0), run(1, entry=named), run(0, entry=halved), run(0, entry=late)]
  )
  assert [group.label for group in groups] == [
    "both",
    "both, location_noise 0.5",
    "both, location_noise (1 2)",
  ]


@pytest.mark.parametrize(
  ("changed", "words"),
  [
    ({"model": {"patch_size": 12}}, ("patch_size 8", "patch_size 12")),
    ({"model": {"hidden_size": 64}}, ("hidden_size 256", "hidden_size 64")),
    ({"train": {"num_epochs": 20}}, ("num_epochs 10", "num_epochs 20")),
    (
      {"train": {"max_gradient_norm": 5.0}},
      ("max_gradient_norm none", "max_gradient_norm 5.0"),
    ),
    ({"model": {"branch_size": 8}}, ("branch_size 128", "branch_size 8")),
    ({"entry": {"split": "validation"}}, ("split test", "split validation")),
    ({"entry": {"num_samples": 10}}, ("num_samples 1", "num_samples 10")),
  ],
)
def test_a_difference_is_a_group_and_its_words(changed, words):
  how = {"split": "test", "num_samples": 1}
  entry = {"entry": how | changed.pop("entry", {})}
  runs = [run(0, entry=how), run(1, entry=how), run(0, **entry, **changed)]
  first, second = group_runs(runs)
  assert [len(first.runs), len(second.runs)] == [2, 1]
  assert (first.label, second.label) == tuple(f"both, {word}" for word in words)


def test_moved_data_and_parts_of_a_batch_change_nothing():
  runs = [
    own(0, "/x/cells", FIRST),
    own(1, "/y/cells", FIRST),
    own(2, "/y/cells", FIRST),
  ]
  runs[2]["config"]["train"]["accumulation_steps"] = 4
  [group] = group_runs(runs)
  assert group.label == "both"


def test_other_data_in_a_folder_of_the_same_name():
  """Told apart by their paths, or by their checksums if one folder has changed."""
  by_path = [own(0, "/x/first/cells", FIRST), own(1, "/x/second/cells", SECOND)]
  assert [group.dataset for group in group_runs(by_path)] == [
    "folder_cells (first/cells)",
    "folder_cells (second/cells)",
  ]
  by_sum = [own(0, "/x/cells", FIRST), own(1, "/x/cells", SECOND)]
  assert [group.label for group in group_runs(by_sum)] == [
    "both, folder_cells (data sha256 aaaaaaaa)",
    "both, folder_cells (data sha256 bbbbbbbb)",
  ]


def test_a_canvas_is_another_dataset_where_names_do_not_say_so():
  """As in results of earlier versions, which hold no name of the dataset."""
  runs = [run(0), run(1, train={"canvas_size": 60})]
  for each in runs:
    del each["dataset"]
  assert [group.label for group in group_runs(runs)] == [
    "both, mnist (canvas size None)",
    "both, mnist (canvas size 60)",
  ]


def test_what_a_run_is_judged_on_counts():
  def judged(seed, checksum, own_data):
    judged_on = {"dataset": "npz:/x.npz", "data_sha256": checksum, "own_data": own_data}
    name = "mnist" if own_data else "mnist on npz_x"
    return run(seed, dataset=name, entry={"judged_on": judged_on})

  runs = [
    *(judged(0, None, True), judged(0, FIRST, False)),
    *(judged(1, FIRST, False), judged(0, SECOND, False)),
  ]
  assert [group.labelled for group in group_runs(runs)] == [
    "both, mnist (n = 1)",
    "both, mnist on npz_x (judged on aaaaaaaa) (n = 2)",
    "both, mnist on npz_x (judged on bbbbbbbb) (n = 1)",
  ]


def test_a_seed_counts_once():
  """The same run twice has no deviation that says anything."""
  groups = group_runs([run(0), run(1), run(0), run(0)])
  assert [group.labelled for group in groups] == [
    "both (n = 2)",
    "both, copy 2 of seed 0 (n = 1)",
    "both, copy 3 of seed 0 (n = 1)",
  ]


def test_entries_of_a_results_file_know_their_group():
  runs = [run(0), run(0, model={"patch_size": 12}), run(1)]
  found = with_groups(runs)
  assert [entry["group"] for entry in found] == [
    *("both, patch_size 8", "both, patch_size 12", "both, patch_size 8"),
  ]
  assert [{k: v for k, v in e.items() if k != "group"} for e in found] == runs


def test_configurations_of_earlier_versions_are_read():
  """A missing field is what that version did."""
  old = run(1)
  del old["config"]["model"]["core"]
  [group] = group_runs([run(0), old])
  assert len(group.runs) == 2


def test_a_run_that_has_not_ended_is_told_from_one_that_has():
  ended, other = run(0, entry={"step": 3200}), run(1, entry={"step": 15})
  groups = group_runs([ended, other])
  assert [len(group.runs) for group in groups] == [1, 1]
  assert [group.label for group in groups] == ["both, step 3200", "both, step 15"]
