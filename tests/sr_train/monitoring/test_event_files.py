"""TensorBoard shows each step once and in order, whatever the clock and kills did."""

import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from sr_train.monitoring.event_files import files
from sr_train.monitoring.tensorboard import TensorBoardLogger


def events(run, tag="loss"):
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def launch(run, first_step, steps, value):
    logger = TensorBoardLogger(run, first_step)
    for step in steps:
        logger.scalars({"loss": value}, step)
    logger.close()


def test_launches_stay_in_order_where_the_clock_goes_back(tmp_path, monkeypatch):
    now = time.time()
    for number, back in enumerate((0, 86_400, 2 * 86_400)):
        monkeypatch.setattr("time.time", lambda back=back: now - back)
        first = 10 * number + 1
        launch(tmp_path, first, range(first, first + 14), float(number))
    expected = [(s, 0.0) for s in range(1, 11)] + [(s, 1.0) for s in range(11, 21)]
    assert events(tmp_path) == [*expected, *((s, 2.0) for s in range(21, 35))]


def test_a_half_written_event_is_left_behind(tmp_path):
    launch(tmp_path, 1, range(1, 6), 0.0)
    (file,) = files(tmp_path / "tensorboard")
    file.write_bytes(file.read_bytes()[:-7])
    launch(tmp_path, 4, range(4, 8), 1.0)
    assert events(tmp_path) == [(1, 0.0), (2, 0.0), (3, 0.0), *((s, 1.0) for s in range(4, 8))]


def test_a_value_that_is_written_again_replaces_the_earlier_one(tmp_path):
    """A validation of step 3 that did not end is made up for by the next launch."""
    first = TensorBoardLogger(tmp_path, 1)
    first.scalars({"loss": 0.5}, 3)
    first.scalars({"val/main/psnr_y": 20.0}, 3)
    first.close()
    again = TensorBoardLogger(tmp_path, 4)
    again.scalars({"val/main/psnr_y": 21.0}, 3)
    again.scalars({"loss": 0.4}, 4)
    again.close()
    assert events(tmp_path) == [(3, 0.5), (4, 0.4000000059604645)]
    assert events(tmp_path, "val/main/psnr_y") == [(3, 21.0)]


def test_nothing_is_rewritten_without_need(tmp_path):
    launch(tmp_path, 1, range(1, 6), 0.0)
    (file,) = files(tmp_path / "tensorboard")
    before = file.read_bytes()
    launch(tmp_path, 6, range(6, 8), 1.0)
    assert files(tmp_path / "tensorboard")[0].read_bytes() == before


def test_files_of_other_writers_are_cut_off_too(tmp_path):
    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    for step in range(1, 6):
        writer.add_scalar("loss", 9.0, step)
    writer.close()
    launch(tmp_path, 3, range(3, 5), 1.0)
    assert events(tmp_path) == [(1, 9.0), (2, 9.0), (3, 1.0), (4, 1.0)]
