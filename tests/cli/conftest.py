"""The command line on a workload of seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest

Fedsim = Callable[..., tuple[int, str, str]]

SMALL = """
name: small
federation:
  cache: {cache}
  root: {root}
  matrix: [32, 32]
  split: {{train: 0.5, val: 0.25, test: 0.25}}
  sites:
    - name: A
      source: {{format: phantom, subjects: 4, slices: 3, size: 48, contrast: [t1, t2]}}
    - name: B
      source: {{format: phantom, subjects: 4, slices: 2, size: 48, contrast: flair}}
      mask: {{kind: radial, acceleration: 3}}
model: {{channels: 2, pools: 2}}
training: {{rounds: 2, batch_size: 2, lr: 1.0e-3}}
engine: {{backend: serial}}
"""
PAIR = """
name: pair
kind: compare
workload: small.yaml
seeds: [1]
reference: fedavg
methods: {fedavg: {}, single: {}}
"""
"""A study of two points."""


@pytest.fixture
def workload(tmp_path: Path, cache: Path) -> Path:
    (tmp_path / "data").mkdir()
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(cache=cache, root=tmp_path / "data"))
    return path
