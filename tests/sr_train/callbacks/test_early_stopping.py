from pathlib import Path

import pytest

from sr_train.api.callback import Run
from sr_train.api.errors import ConfigError
from sr_train.callbacks.early_stopping import EarlyStopping

WAYS = {"psnr_y": True, "lpips": False, "set5/psnr_y": True}


class Model:
    class generator:
        steps = 4


def run_of(ways=WAYS):
    return Run(Model(), 10, Path("nowhere"), print, higher_is_better=ways)


def validations_until_stop(values, metric="psnr_y", **settings):
    """Return after how many validations a run is stopped; None: it is not."""
    stopping, run = EarlyStopping(metric, **settings), run_of()
    for number, value in enumerate(values, start=1):
        stopping.on_validation_end(run, {metric: value})
        if run.stop_reason is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([1, 2, 3, 4], {}, None),
        ([3, 2, 1], {}, 3),
        ([3, 2, 4, 3, 3], {}, 5),
        ([3, 3, 3], {}, 3),
        ([3, 2, 1], {"metric": "lpips"}, None),
        ([1, 2, 3], {"metric": "lpips"}, 3),
        ([1.0, 1.05, 1.09], {"min_delta": 0.1}, 3),
        ([1.0, 1.05, 1.2], {"min_delta": 0.1}, None),
        ([float("nan"), float("nan")], {}, 2),
        ([float("nan"), 1, 2], {}, None),
        ([3, float("nan"), 2], {}, 3),
    ],
)
def test_it_stops_after_patience_validations_without_an_improvement(values, settings, expected):
    assert validations_until_stop(values, **{"patience": 2, **settings}) == expected


def test_the_reason_says_what_was_reached_and_how_to_train_on():
    stopping, run = EarlyStopping("lpips", patience=1), run_of()
    for value in (0.25, 0.5):
        stopping.on_validation_end(run, {"lpips": value})
    assert run.stop_reason == (
        "lpips has not fallen for 1 validations, best 0.2500 at step 4; to train on, raise patience"
    )


@pytest.mark.parametrize(("patience", "stops"), [(2, True), (3, False)])
def test_a_resume_stops_at_once_unless_patience_was_raised(patience, stops):
    before = EarlyStopping("psnr_y", patience=2)
    for value in (3, 2, 1):
        before.on_validation_end(run_of(), {"psnr_y": value})
    again, run = EarlyStopping("psnr_y", patience=patience), run_of()
    again.load_state_dict(before.state_dict())
    assert again.state_dict() == before.state_dict()
    again.on_run_start(run)
    assert (run.stop_reason is not None) == stops


def test_what_cannot_be_watched_is_told_before_the_first_step():
    with pytest.raises(ConfigError, match="metric=psnr: no such score; did you mean 'psnr_y'"):
        EarlyStopping("psnr").on_run_start(run_of())
    with pytest.raises(ConfigError, match="no validation set"):
        EarlyStopping("psnr_y").on_run_start(run_of({}))
    EarlyStopping("set5/psnr_y").on_run_start(run_of())
    for settings in ({"patience": 0}, {"min_delta": -1.0}, {"min_delta": float("nan")}):
        with pytest.raises(ValueError, match="expected"):
            EarlyStopping("psnr_y", **settings)
