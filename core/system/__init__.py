"""This PC: processor, RAM, cards by NVML, sleep, and what is wrong with it; child processes, spoken to in `lines` or asked by the
files of a `job`. No torch.

Imports: the ground. Add a check of `doctor`: `checkup` or `surroundings`, its sentences in `doctor.yaml`.
"""
