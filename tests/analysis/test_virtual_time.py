"""What the ledger says about simulated time, checked by hand."""

import numpy as np
import pandas as pd
import pytest

from fedsim.analysis.comparison import interval
from fedsim.analysis.virtual_time import (
    SHARES,
    as_methods,
    busy_shares,
    by_region,
    has_virtual_time,
    milestones,
    outcomes,
    over_seeds,
    staleness_counts,
    time_to_quality,
    turns_of,
)

from .timed import TURNS, clients_of, curve, rounds_of, three_modes

NAN = float("nan")
ROUNDS = rounds_of([20, 30, 40], [20, NAN, 30])


def test_a_ledger_without_simulated_time() -> None:
    assert has_virtual_time(ROUNDS)
    assert not has_virtual_time(ROUNDS.drop(columns="virtual_s"))
    assert not has_virtual_time(ROUNDS.assign(virtual_s=NAN))
    assert not has_virtual_time(ROUNDS.assign(virtual_s=0.0)), "clients that take none, as if it stood still"


def test_turns_use_time_until_the_run_ends() -> None:
    idle = (3, "D", NAN, NAN, NAN, "idle")
    beyond = (3, "C", 30, 60, 0, "late")
    turns = turns_of(ROUNDS, clients_of([*TURNS, idle, beyond]))
    assert list(turns["client"]) == ["A", "B", "A", "C", "A", "B", "C"]
    assert list(turns["seconds"]) == [10, 20, 10, 30, 10, 20, 10], "C's last turn is cut off where the run ends"


def test_outcomes_and_busy_shares() -> None:
    turns = turns_of(ROUNDS, clients_of([*TURNS, (3, "D", 30, 35, 0, "dropped"), (3, "E", 30, 30, 0, "unavailable")]))
    table = outcomes(turns, available_s=200).set_index("outcome")
    assert list(table.index) == ["trained", "dropped", "unavailable"]
    assert list(table["turns"]) == [6, 1, 1]
    assert list(table["share"]) == [0.75, 0.125, 0.125]
    assert list(table["busy"]) == [0.5, 0.025, 0]
    assert list(busy_shares(turns, 40, clients=7)) == [0, 0, 0, 0.125, 0.75, 0.75, 1], "two never had a turn"


def test_staleness_counts_uploads_that_entered() -> None:
    turns = turns_of(ROUNDS, clients_of([*TURNS, (3, "C", 30, 40, 0, "late"), (3, "D", 0, 40, 3, "trained")]))
    assert staleness_counts(turns).to_dict() == {0: 4, 1: 2, 2: 0, 3: 1}
    assert staleness_counts(turns[:0]).empty


def test_quality_by_region_is_the_mean_over_its_clients() -> None:
    rows = [(1, "A", 1, 20.0), (1, "B", 2, 30.0), (1, "C", 2, 32.0), (2, "A", 1, 22.0), (2, "B", 2, 29.0)]
    clients = pd.DataFrame(rows, columns=["round", "client", "region", "psnr"])
    assert by_region(clients, 1).to_dict("list") == {
        "region": [1, 2], "clients": [1, 2], "best": [20, 31], "last": [22, 29],
    }  # fmt: skip
    idle = pd.DataFrame({"round": [3], "client": ["D"], "region": [NAN], "psnr": [NAN]})
    assert by_region(pd.concat([clients, idle]), 1).equals(by_region(clients, 1)), "rows that no ledger has"
    assert by_region(clients.drop(columns="region"), 1).empty
    assert by_region(clients.assign(psnr=NAN), None).empty


def test_milestones_are_validated_rounds() -> None:
    rounds = rounds_of([10, 20, 30, 40, 50], [27.5, 29, NAN, 30, 29.5])
    table = milestones(rounds)
    assert list(table["share"]) == list(SHARES)
    assert list(table["target"]) == pytest.approx([27, 28.5, 29.4, 29.7, 30])
    assert list(table["round"]) == [1, 2, 4, 4, 4]
    assert list(table["virtual_s"]) == [10, 20, 40, 40, 40]
    assert list(table["bytes"]) == [2e6, 4e6, 8e6, 8e6, 8e6]
    assert milestones(rounds.assign(psnr=NAN)).empty


def test_time_to_quality_is_to_that_of_the_reference_with_the_same_seed() -> None:
    reached = time_to_quality(three_modes(), "synchronous").set_index(["method", "seed"])
    assert reached.loc[("synchronous", 2), "target"] == pytest.approx(0.98 * 32)
    assert reached.loc[("synchronous", 2), "virtual_s"] == 300
    assert reached.loc[("synchronous", 2), "bytes"] == 1_500_000, "three rounds of 2 MB, of four clients"
    assert reached.loc[("buffered", 3), "virtual_s"] == 153
    assert reached.loc[("deadline", 2), "virtual_s"] == 240
    assert np.isnan(reached.loc[("deadline", 3), "virtual_s"]), "never reached, and kept"
    assert reached.loc[("deadline", 3), "end_s"] == 240


def test_intervals_over_seeds_and_speed_up() -> None:
    table = over_seeds(time_to_quality(three_modes(), "synchronous"), "synchronous").set_index("method")
    buffered = table.loc["buffered"]
    times = [151, 152, 153]
    assert (buffered["mean"], buffered["low"], buffered["high"]) == pytest.approx(
        interval(times)[1:2] + interval(times)[3:]
    )
    ratios = np.log([300 / time for time in times])
    ends = interval(ratios.tolist())
    assert buffered["speed_up"] == pytest.approx(np.exp(ratios.mean()))
    assert (buffered["speed_up_low"], buffered["speed_up_high"]) == pytest.approx((np.exp(ends.low), np.exp(ends.high)))
    assert buffered["p_holm"] == buffered["p"] < 0.001, "the only comparison with times on both sides"
    assert list(table["tests"]) == [1, 1, 1]


def test_a_mean_over_seeds_that_never_got_there_is_none() -> None:
    table = over_seeds(time_to_quality(three_modes(), "synchronous"), "synchronous").set_index("method")
    deadline = table.loc["deadline"]
    assert (deadline["seeds"], deadline["reached"]) == (3, 2)
    assert deadline[["mean", "low", "high", "bytes", "speed_up", "p"]].isna().all()
    assert table.loc["synchronous", ["speed_up", "p"]].isna().all(), "the reference is compared with nothing"


def test_a_reference_that_never_got_there_gives_no_speed_up() -> None:
    curves = three_modes().query("method != 'deadline'")
    late = curves.assign(psnr=curves["psnr"].where((curves["method"] == "buffered") | (curves["round"] == 1)))
    swapped = over_seeds(time_to_quality(late, "buffered"), "buffered").set_index("method")
    assert swapped.loc["synchronous", "reached"] == 0
    assert np.isnan(swapped.loc["synchronous", "speed_up"])
    assert over_seeds(time_to_quality(late, "nobody"), "nobody").empty


def test_two_seeds_are_too_few_for_a_test() -> None:
    curves = three_modes().query("seed < 3")
    table = over_seeds(time_to_quality(curves, "synchronous"), "synchronous").set_index("method")
    assert table.loc["buffered", "speed_up"] == pytest.approx(300 / np.sqrt(151 * 152))
    assert np.isnan(table.loc["buffered", "p"])


def test_values_of_time_that_a_study_varies_count_as_methods() -> None:
    curves = pd.concat([
        curve("fedavg", 1, [10, 20], [20, 30], "buffer-2"),
        curve("fedavg", 1, [5, 10], [20, 30], "buffer-4"),
    ])  # fmt: skip
    axes = {"buffer-2": {"time.buffer": 2}, "buffer-4": {"time.buffer": 4}}
    known, reference = as_methods(curves, axes, "fedavg")
    assert reference == "buffer 2"
    table = over_seeds(time_to_quality(known, reference), reference).set_index("method")
    assert table.loc["buffer 4", "speed_up"] == 2
    both = pd.concat([curves, curves.assign(method="fedmri")])
    assert as_methods(both, axes, "fedmri")[1] == "buffer 2, fedmri"
    assert as_methods(curves, {"buffer-2": {}, "buffer-4": {}}, "fedavg") == (curves, "fedavg")


def test_other_keys_that_it_varies_make_regimes() -> None:
    axes = {
        f"{lr}-{at}": {"training.lr": lr, "time.mode": mode, "time.compute.samples_per_s": [1, 9]}
        for at, mode in enumerate(("synchronous", "asynchronous")) for lr in (0.1, 0.2)
    }  # fmt: skip
    curves = pd.concat([curve("fedavg", 1, [10, 20], [20, 30], regime) for regime in axes])
    known, reference = as_methods(curves, axes, "fedavg")
    assert reference == "mode synchronous, samples_per_s [1, 9]"
    reached = time_to_quality(known, reference)
    assert list(reached["regime"]) == ["lr 0.1", "lr 0.1", "lr 0.2", "lr 0.2"]
    assert list(reached["method"].unique()) == [reference, "mode asynchronous, samples_per_s [1, 9]"]


def test_a_psnr_below_zero_has_no_shares() -> None:
    """98 % of -2 dB would be more than -2 dB."""
    assert milestones(rounds_of([10, 20], [-9, -2])).empty
    curves = three_modes()
    assert over_seeds(time_to_quality(curves.assign(psnr=curves["psnr"] - 50), "synchronous"), "synchronous").empty


def test_a_quality_that_took_no_time_gives_no_speed_up() -> None:
    """As where the first cohort was of sites whose turns take none."""
    curves = pd.concat([curve("a", seed, [0, 10], [30, 30]) for seed in (1, 2, 3)])
    both = pd.concat([curves, curves.assign(method="b", virtual_s=curves["virtual_s"] + 5)])
    for reference, other in (("a", "b"), ("b", "a")):
        table = over_seeds(time_to_quality(both, reference), reference).set_index("method")
        assert table.loc[other, ["speed_up", "speed_up_low", "p"]].isna().all()
