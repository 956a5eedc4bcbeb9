"""Recommended settings for a training, and problems of a plan or a run: each decision with its reason. No torch.

Imports: data, memory, models, runs, workspace, system and the ground. Where to add:

a setting that is recommended or costs memory   SETTINGS in `decisions`
a rule of the recommendation   a decision in `decisions`, its sentence in `advise.yaml`
a fact about a model family    presets/families.yaml
a word of the model search     presets/shelf.yaml
a warning; a goal              `warnings`; presets/goals/<id>.yaml
a finding of the run doctor    a rule in `run_doctor` (plans) or `curve_doctor` (runs), its sentences in
                               `run_doctor.yaml`, a title in `findings_view.yaml`, a paragraph in
                               docs/guide/when-something-goes-wrong.md
"""
