"""All bad inputs."""

from .bad_data import bad_data
from .bad_keys import bad_keys
from .bad_runs import bad_runs

CATALOGUE = (*bad_keys(), *bad_data(), *bad_runs())
