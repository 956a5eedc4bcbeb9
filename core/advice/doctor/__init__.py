"""The run doctor's findings for preference runs (`pairs`); `core.advice.curve_doctor` has those for every run. No
torch.

Imports: the rest of advice's ground (decisions, diagnosis), never `curve_doctor`, which calls it. To add a rule: a
function called by `of_pairs`, its sentences in run_doctor.yaml, a title in findings_view.yaml, a paragraph in
docs/guide/when-something-goes-wrong.md.
"""
