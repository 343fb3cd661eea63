import math

import torch

from sr_train.monitoring.meter import Meter


def test_reading_before_the_first_value_is_an_empty_log():
    window = Meter().read()
    assert (window.means, window.counts, window.non_finite) == ({}, {}, {})


def test_every_mean_knows_its_own_count():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add("a", torch.tensor(value))
    meter.add("b", 4)
    window = meter.read()
    assert window.means == {"a": 3.0, "b": 4.0}
    assert window.counts == {"a": 3, "b": 1}


def test_tensors_floats_and_ints_of_any_dtype_come_back():
    meter = Meter()
    meter.add("x", torch.tensor(2, dtype=torch.int64))
    meter.add("x", torch.tensor(1.0, dtype=torch.bfloat16))
    meter.add("x", 0.0)
    assert meter.read().means == {"x": 1.0}


def test_reading_starts_a_new_window():
    meter = Meter()
    meter.add("a", 1.0)
    meter.read()
    meter.add("a", 5.0)
    assert meter.read().means == {"a": 5.0}


def test_non_finite_values_are_counted_and_kept_out_of_the_mean():
    meter = Meter()
    for value in (1.0, math.nan, math.inf, 3.0):
        meter.add("a", torch.tensor(value))
    meter.add("b", math.nan)
    window = meter.read()
    assert window.means == {"a": 2.0}
    assert window.counts == {"a": 2}
    assert window.non_finite == {"a": 2, "b": 1}


def test_a_fold_makes_one_value_of_the_parts_of_each_micro_batch():
    meter = Meter()
    meter.add("loss", 7.0)
    mark = meter.mark()
    for value in (1.0, 3.0, 4.0, math.nan):
        meter.add("loss", torch.tensor(value))
        meter.add("new", torch.tensor(value))
    meter.add("norm", 5.0)
    meter.fold(mark, 2)
    window = meter.read()
    assert window.means == {"loss": (7.0 + 2.0) / 2, "new": 2.0, "norm": 5.0}
    assert window.counts == {"loss": 2, "new": 1, "norm": 1}
    assert window.non_finite == {"loss": 1, "new": 1}


def test_a_fold_of_one_part_changes_nothing():
    meter = Meter()
    mark = meter.mark()
    meter.add("loss", 1.0)
    meter.add("loss", 3.0)
    meter.fold(mark, 1)
    assert meter.read().counts == {"loss": 2}


def test_a_rewind_drops_what_was_added_since_the_mark():
    meter = Meter()
    meter.add("loss", 1.0)
    mark = meter.mark()
    meter.add("loss", 3.0)
    meter.add("new", 3.0)
    meter.rewind(mark)
    assert meter.read().means == {"loss": 1.0}


def test_values_are_taken_up_as_they_were_up_to_a_mark():
    meter, other = Meter(), Meter()
    for value in (0.1, torch.tensor(0.2), math.nan):
        meter.add("a", value)
    mark = meter.mark()
    meter.add("a", 7.0)
    meter.add("b", 7.0)
    other.restore(meter.values(mark))
    meter.rewind(mark)
    assert other.read() == meter.read()
    assert meter.values() == {}
