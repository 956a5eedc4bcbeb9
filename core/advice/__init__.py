"""What to train a model with, and what is wrong with a plan or a run: each decision with its reason. No torch.

Imports: data, memory, models, runs, workspace, system and the ground.
Add a setting that is advised on, or costs memory: SETTINGS in `case`. Add a rule of the recommendation: a decision in
`decisions`, its sentence in `advise.yaml`. Add what is known of a family:
presets/families.yaml. Add a word by which people look for a model: presets/shelf.yaml. Add a warning: `warnings`. Add a
goal: presets/goals/<id>.yaml. Add what the run doctor finds: a rule in `run_doctor` (plans) or `curve_doctor` (runs),
its sentences in `run_doctor.yaml`, a title in `findings_view.yaml`, a paragraph in
docs/guide/when-something-goes-wrong.md.
"""
