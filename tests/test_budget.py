"""What may be spent on looking at a run: by hand, with a clock that is moved by hand."""

import pytest
import torch

from gan_lightning.budget import END, HEAD_START, Budget, Costs, Plan, SnapshotCadence


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("gan_lightning.budget.time.perf_counter", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


@pytest.mark.parametrize(
    ("seconds", "allowed"), [(10, 1.0), (30, 3.0), (45, 3.0), (60, 3.0), (600, 30.0)]
)
def test_a_twentieth_and_of_a_short_run_a_tenth(seconds, allowed):
    assert Budget(0.05).allowed(seconds) == pytest.approx(allowed)


def test_it_is_earned_as_the_run_goes_on(clock):
    budget = Budget(0.05)
    budget.start(0.0)
    clock(60)
    assert budget.whole(0.1) == pytest.approx(600)
    left = 30 * (1 - END) * (HEAD_START + (1 - HEAD_START) * 0.1)
    assert budget.left(0.1) == pytest.approx(left)
    with budget.spending(torch.device("cpu")):
        clock(4)
    assert (
        budget.spent == 4
        and budget.trained == 60
        and budget.fraction_spent == pytest.approx(4 / 64)
    )
    assert budget.left(0.1) == pytest.approx(left - 4)
    clock(540)
    assert budget.left(1.0) == pytest.approx(30 * (1 - END) - 4)
    assert budget.at_end() == pytest.approx(26)


def test_what_is_being_spent_counts_at_once_and_what_is_kept_does_not(clock):
    budget, kept = Budget(0.05), [100.0]
    budget.start(0.0)
    clock(60)
    with budget.spending(torch.device("cpu"), lambda: kept[0]):
        clock(1)
        assert (budget.spent, budget.trained, budget.at_end()) == (1, 60, pytest.approx(2))
        clock(50)
        kept[0] += 49  # of these 50 seconds
        assert (budget.spent, budget.at_end()) == (2, pytest.approx(1))
    kept[0] += 7  # of another's
    assert (budget.spent, budget.trained) == (2, 60)


def test_it_goes_on_where_it_was(clock):
    first = Budget(0.05)
    clock(300)
    with first.spending(torch.device("cpu")):
        clock(10)
    second = Budget(0.05)
    second.load_state_dict(first.state_dict())
    second.start(0.5)
    clock(150)
    assert second.whole(0.75) == pytest.approx(300 + 300)
    assert second.at_end() == pytest.approx(0.05 * 450 - 10)


def test_where_not_all_fits_each_kind_has_its_part():
    """Of 10 earned seconds 2 are for pictures, 5 for the diagnosis, 3 for scores."""
    costs = Costs()
    costs.took("picture", 2.0)
    costs.took("signals", 4.0, 64)
    costs.took("score", 1.4, 100)
    plan = Plan(True, 64, 100)
    assert costs.of(plan) == pytest.approx(7.4)
    assert costs.affordable(plan, 7, 2.0) == Plan()
    assert costs.affordable(plan, 10, 10 - 7.4) == Plan(scored=100)
    assert costs.affordable(plan, 16, 16 - 7.4) == Plan(False, 64, 100)
    assert costs.affordable(plan, 20, 20 - 7.4) == Plan(True, 64, 100)
    # after the picture 3 seconds are left, and the signals cost 4
    assert costs.affordable(plan, 20, 5.0) == Plan(True, 0, 100)
    # whose turn it is may take all that is left
    assert costs.affordable(plan, 10, 5.0, "signals") == Plan(images=64)
    assert costs.affordable(plan, 10, 3.0, "signals") == costs.affordable(plan, 10, 3.0)
    assert costs.affordable(plan, 20, 6.5, "signals") == Plan(True, 64, 0)


class Halfway:
    """A module that the clock ends: half of its time is over after 300 of 10,000 planned images."""

    planned_nimg, nimg, progress = 10_000, 300, 0.5


def test_parts_of_a_run_follow_the_clock_where_it_ends_it():
    cadence = SnapshotCadence(None)
    cadence.start(Halfway, 100)
    assert (cadence.mark, cadence.next_nimg) == (11, 330)  # the eleventh of twenty parts
    assert [cadence.due(None, Halfway, nimg) for nimg in (329, 331)] == [False, True]


def test_a_cadence_in_images():
    cadence = SnapshotCadence(0.2)
    cadence.start(Halfway, 100)
    assert (cadence.every, cadence.count, cadence.next_nimg) == (200, 50, 400)
    assert [cadence.due(None, Halfway, nimg) for nimg in (399, 400)] == [False, True]
