"""Work on large files and datasets in a separate process: `dataset_process` starts `dataset_worker`. No torch.

To add an act: a function in `dataset_worker.ACTS`, called by `dataset_process.run` where `dataset_process.is_needed`.
Imports: the rest of core.data.
"""
