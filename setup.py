"""Everything else is in pyproject.toml: this copies clusters/ and workloads/ into the package as it is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("clusters", "workloads")


class BuildWithShipped(build_py):
    """The package, with the folders beside it; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, then copy the folders."""
        super().run()
        for name in SHIPPED if not self.editable_mode else ():
            copy = Path(self.build_lib, "fedsim", name)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(name, copy, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithShipped})
