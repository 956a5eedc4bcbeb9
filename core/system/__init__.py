"""This PC: CPU, RAM, GPUs by NVML, sleep, and problems with them; child processes that exchange `lines` or the files of
a `job`. No torch.

Imports: the ground. To add a check of `doctor`: `checkup` or `surroundings`, its sentences in `doctor.yaml`.
"""
