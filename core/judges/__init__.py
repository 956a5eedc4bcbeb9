"""Judges of answers: each returns right, partly or wrong with its reason, by an expected answer or a rule. `judge`
has the judges, `propose` chooses one from the expected answers, `paired` compares contestants on the same questions
and a judge with a person. No torch, no model, no network; nothing of the data is run.

Imports: the ground. Add a judge: a kind in `specs`, its function in `judge`, its sentences in `judges.yaml`.
"""
