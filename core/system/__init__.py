"""This PC: processor, RAM, cards by NVML, child processes, sleep, and what is wrong with it. No torch.

Imports: the ground. Add a check of `doctor`: `checkup`, its sentences in `doctor.yaml`.
"""
