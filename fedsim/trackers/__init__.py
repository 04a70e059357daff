"""Trackers: what tells TensorBoard, MLflow, Weights & Biases or a user's own service about a run."""
