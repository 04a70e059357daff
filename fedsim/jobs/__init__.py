"""Sending a workload or a study to a cluster: Ray's Jobs API, SLURM, KubeRay."""
