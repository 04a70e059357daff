"""What clients have done so far, against pandas on the whole table."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fedsim.analysis.cohorts import QUANTITIES, RANGE, TURNS, Cohorts
from fedsim.engine.record.growing import Change


def made(rounds: int, sites: int) -> pd.DataFrame:
    """Two clients a site, some of which train."""
    rng = np.random.default_rng(1)
    rows = [
        {"round": round_, "client": f"S{site}.{one}", "site": f"S{site}", "outcome": rng.choice([*TURNS, "idle"]),
         "train_seconds": 1.0, **{name: rng.choice([rng.random(), np.nan, np.inf]) for name in QUANTITIES}}
        for round_ in range(1, rounds + 1) for site in range(sites) for one in (1, 2) if rng.random() < 0.6
    ]  # fmt: skip
    return pd.DataFrame(rows)


def followed(table: pd.DataFrame, sites: int, *firsts: int) -> Cohorts:
    """Taken up in pieces that begin with these rounds; in each, rounds from the next first on are void."""
    names = [f"S{site}" for site in range(sites)]
    cohorts = Cohorts([f"{name}.{one}" for name in names for one in (1, 2)], names)
    for first in (1, *firsts):
        part = table[table["round"] >= first]
        cohorts.take_up(Change(first, pa.Table.from_pandas(part, preserve_index=False)))
    return cohorts


@pytest.mark.parametrize("firsts", [(), (3,), (4, 2)])
def test_every_site_has_the_mean_over_its_clients(firsts: tuple[int, ...]) -> None:
    table = made(5, 4)
    cohorts = followed(table, 4, *firsts)
    assert cohorts.lines == ("S0", "S1", "S2", "S3")
    assert list(cohorts.quality) == [1, 2, 3, 4, 5]
    for round_, found in cohorts.quality.items():
        rows = table[table["round"] == round_].groupby("site")[list(QUANTITIES)].agg(lambda one: one.mean())
        wanted = rows.reindex(list(cohorts.lines)).replace([np.inf, -np.inf], np.nan)
        np.testing.assert_allclose(found, wanted.to_numpy().T, equal_nan=True)


def test_many_sites_are_summarised() -> None:
    table = made(3, 40).replace(np.inf, 2.0)
    cohorts = followed(table, 40)
    assert cohorts.lines == RANGE
    sites = table[table["round"] == 2].groupby("site")["psnr"].mean().dropna()
    np.testing.assert_allclose(cohorts.quality[2][0], [sites.quantile(share) for share in (0.9, 0.5, 0.1)])


def test_each_clients_last_turn_counts_and_validation_is_none() -> None:
    table = made(6, 5)
    cohorts = followed(table, 5, 4)
    turns = table[table["outcome"] != "idle"].groupby("client").last()
    for place, (round_, turn) in enumerate(zip(cohorts.round, cohorts.turn, strict=True)):
        client = f"S{place // 2}.{place % 2 + 1}"
        assert (round_, TURNS[turn]) == (turns.loc[client, "round"], turns.loc[client, "outcome"])
    assert cohorts.sure
    assert set(cohorts.last["client"]) == set(table[table["round"] == 6]["client"])


def test_a_turn_that_became_void_makes_the_last_turns_unsure() -> None:
    table = made(6, 5)
    cohorts = followed(table, 5)
    assert cohorts.sure
    cohorts.take_up(Change(5, pa.table({"round": pa.array([], pa.int64())})))
    assert not cohorts.sure
    assert cohorts.newest == 4
