"""What Ray's errors become."""

import pytest

from fedsim.core.errors import RunError
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
