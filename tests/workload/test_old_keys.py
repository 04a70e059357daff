"""Keys by their old names are read under their new ones, with a note that names the new one."""

import logging
from pathlib import Path

import pytest

from fedsim.core.errors import InputError
from fedsim.workload.reading import load_workload

MINIMAL = "name: tiny\nfederation: {sites: [{name: A, source: {format: phantom}}]}\n"
OLD, NEW = "engine.on_error is the old name of engine.on_client_error", "engine.on_lost_process; use the new one"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [("engine: {on_error: drop, on_failure: abort}", []),
     ("", ["engine.on_error=drop", "engine.on_failure=abort"]),
     ("", ["engine={on_error: drop, on_failure: abort}"]),
     ("engine: {on_error: abort, on_client_error: abort}", None),
     ("engine: {on_error: abort, on_failure: drop}", ["engine.on_client_error=drop", "engine.on_lost_process=abort"]),
     ("engine: {on_client_error: abort}", ["engine.on_error=drop", "engine.on_failure=abort"])],
)  # fmt: skip
def test_old_names_are_read_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, overrides: list[str] | None
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(MINIMAL + text)
    if overrides is None:
        with pytest.raises(InputError, match=r"w\.yaml: engine\.on_error: is the old name of .*; delete one of them"):
            load_workload(path)
        return
    with caplog.at_level(logging.INFO, "fedsim"):
        engine = load_workload(path, overrides).engine
    assert (engine.on_client_error, engine.on_lost_process) == ("drop", "abort")
    assert caplog.text.count(OLD) == 1
    assert NEW in caplog.text
