"""This PC: CPU, RAM, GPUs by NVML, sleep, and what is wrong with it; child processes that exchange `lines` or the
files of a `job`. No torch.

Imports: the ground. Add a check of `doctor`: `checkup` or `surroundings`, its sentences in `doctor.yaml`.
"""
