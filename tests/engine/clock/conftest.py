"""A federation for which simulated time is computed; nothing is trained."""

FEDERATION = """
name: clocked
seed: 5
model: {{channels: 2, pools: 1}}
algorithm: {{name: fedavg}}
federation:
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  matrix: [32, 32]
  cache: {cache}
  sites:
"""
"""A workload whose sites, training and time follow; with a folder for `cache`."""
