"""Methods against their definitions: the engine's run beside a plain loop of a few lines, in loops/."""

from collections.abc import Callable

import pytest

from fedsim.engine.record.term import judge, ratio_by_round, term_warning
from fedsim.workload.schema import Workload
from tests.conftest import every

from .conftest import Reference, Simulate, assert_close, bench, load
from .loops import averaging, personal, stateful, term

LOOPS = (averaging, stateful, personal, term)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reference", "keys"), every(5, [case for loops in LOOPS for case in loops.CASES]))
def test_equals_its_definition(
    simulate: Simulate, workload: Callable[..., Workload], method: str, reference: Reference, keys: tuple[str, ...]
) -> None:
    assert_close(simulate(method, *keys), reference(bench(workload(method, *keys))))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reference", "keys", "wrong"), [case for loops in LOOPS for case in loops.WRONG])
def test_a_slightly_other_definition_is_told_apart(
    simulate: Simulate,
    workload: Callable[..., Workload],
    method: str,
    reference: Reference,
    keys: tuple[str, ...],
    wrong: str,
) -> None:
    run, other = simulate(method, *keys), workload(method, *keys, *([wrong] if wrong else []))
    with pytest.raises(AssertionError, match="not close"):
        assert_close(run, reference(bench(other)))


def test_the_pool_is_every_sites_training_slices(workload: Callable[..., Workload]) -> None:
    pool, sites = bench(workload("centralised")), bench(workload("fedavg"))
    together, apart = (
        sorted(float(x) for client in b.clients for batch in b.batches(client, 1) for x in batch.scale.flatten())
        for b in (pool, sites)
    )
    assert len(pool.clients) == 1
    assert together == apart


@pytest.mark.slow
def test_apfl_adapts_alpha_as_the_plain_loop_does(simulate: Simulate, workload: Callable[..., Workload]) -> None:
    keys = (*personal.SGD, "training.rounds=4")
    run, (_, alphas) = simulate("apfl", *keys), personal.apfl_and_alphas(bench(workload("apfl", *keys)))
    for client, alpha in alphas.items():
        (kept,) = load(run, 4, f"clients/{client}")["state.alpha"]
        assert kept - 0.5 == pytest.approx(alpha - 0.5, rel=1e-2)
        assert kept != 0.5


@pytest.mark.slow
def test_the_published_term_alternates_and_the_damped_one_does_not(simulate: Simulate) -> None:
    """On the phantoms of these tests, at the paper's beta; no claim about other data."""
    keys = (
        "algorithm.beta=100",
        "training.rounds=8",
        "training.batch_size=1",
        "training.lr_step=99",
        "metrics.every=0",
    )
    published, damped = (
        ratio_by_round(simulate("fedmri", *keys, f"algorithm.damping={damping}").clients) for damping in (0, 0.9)
    )
    assert judge(published["ratio"].tolist(), published["bound"].tolist()).alternates
    assert published["ratio"].max() > 20 * published["ratio"].min()
    assert term_warning(damped) is None
    assert damped["ratio"].max() < 3 * damped["ratio"].min()
    assert (damped["ratio"] < damped["bound"]).all(), "the bound holds for the damped term too"
