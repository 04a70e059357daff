"""The guard of the markers: a test that is not marked `ray` cannot start Ray, so that the quick run never does."""

import subprocess
import sys

CONNECT = "from fedsim.engine.ray.cluster import connect; connect(None)"


def test_a_test_that_is_not_marked_cannot_start_ray() -> None:
    done = subprocess.run([sys.executable, "-c", CONNECT], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "InputError: RAY_TMPDIR: /a test that is not marked ray is not a writable folder" in done.stderr
