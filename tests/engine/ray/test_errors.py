"""What Ray's errors become."""

import os

import pytest

from fedsim.core.errors import RunError
from fedsim.engine.ray import private
from fedsim.engine.ray.errors import explained


@pytest.mark.usefixtures("ray_session")
def test_an_actor_that_does_not_start_says_what_python_said() -> None:
    import ray

    class Lacking:
        def __init__(self) -> None:
            raise ModuleNotFoundError("No module named 'fedsim'")

        def there(self) -> bool:
            return True

    with (
        pytest.raises(RunError, match=r"^an actor did not start: ModuleNotFoundError: No module named 'fedsim'$"),
        explained(ray),
    ):
        ray.get(ray.remote(Lacking).remote().there.remote())


@pytest.mark.usefixtures("ray_session")
def test_a_cluster_is_asked_once_whether_it_takes_a_token() -> None:
    import ray

    address, token = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]
    assert not private.refuses(address, token)
    assert private.refuses(address, "0" * 64)
    assert private.refuses(address, "")
    assert not private.refuses("auto", "")
