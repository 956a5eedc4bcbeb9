"""Trackers that follow a run: TensorBoard, trackio, Weights & Biases, MLflow, by the callbacks of transformers.
Imports: as core.training."""
