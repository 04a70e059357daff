"""The file for Ray's cluster launcher and the image recipe."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from fedsim.core.yaml import load_yaml

CLUSTERS = Path(__file__).parents[2] / "clusters"


@pytest.fixture(scope="module")
def launched() -> dict[str, Any]:
    """As the launcher fills it out; a copy, for it writes into what it is given."""
    return dict(prepare_config(load_yaml((CLUSTERS / "vms.yaml").read_text())))


def test_ray_takes_the_file(launched: dict[str, Any]) -> None:
    validate_config(launched)
    wrong = deepcopy(launched) | {"max_wrkers": 2}
    with pytest.raises(jsonschema.ValidationError, match="max_wrkers"):
        validate_config(wrong)


def test_as_many_machines_from_the_start_as_there_will_be(launched: dict[str, Any]) -> None:
    worker = launched["available_node_types"]["worker"]
    assert worker["min_workers"] == worker["max_workers"] == launched["max_workers"]
    assert launched["available_node_types"][launched["head_node_type"]]["node_config"] == worker["node_config"]


def test_ray_asks_for_the_users_token_and_its_dashboard_stays_on_loopback(launched: dict[str, Any]) -> None:
    starts = [launched["head_start_ray_commands"][-1], launched["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in launched["head_setup_commands"]


@pytest.mark.parametrize("name", ["vms.yaml", "Dockerfile"])
def test_what_is_installed_is_pinned(name: str) -> None:
    text = (CLUSTERS / name).read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if "pip install" in line and "boto3" not in line]
    assert installs
    assert all("--constraint" in line and "constraints.txt" in line for line in installs)


def test_the_image_has_what_the_project_needs_and_runs_as_nobody_special() -> None:
    lines = (CLUSTERS / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((CLUSTERS.parent / name).exists() for name in copied)
    assert lines.index("USER ray") > max(at for at, line in enumerate(lines) if line.startswith("RUN"))
