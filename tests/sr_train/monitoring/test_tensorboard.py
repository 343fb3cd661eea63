import errno
import math
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from sr_train.monitoring.tensorboard import TensorBoardLogger, write_hparams


def read(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_scalars_come_back_with_their_steps(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for step in (100, 200):
        logger.scalars({"loss_scale/g": step / 2, "skipped_steps/g": 3}, step)
    logger.close()
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("loss_scale/g")] == [(100, 50), (200, 100)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_that_is_not_finite_is_written(tmp_path, value):
    logger = TensorBoardLogger(tmp_path)
    logger.scalars({"bad": value, "good": 1.0}, 1)
    logger.close()
    assert read(tmp_path).Tags()["scalars"] == ["good"]


def test_what_a_cut_off_run_left_is_hidden(tmp_path):
    first = TensorBoardLogger(tmp_path)
    for step in (1, 2, 3):
        first.scalars({"loss": float(step)}, step)
    first.close()
    again = TensorBoardLogger(tmp_path, first_step=2)
    again.scalars({"loss": 20.0}, 2)
    again.close()
    assert [(e.step, e.value) for e in read(tmp_path).Scalars("loss")] == [(1, 1.0), (2, 20.0)]


def test_images_histograms_and_the_config_are_written(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.image("val/a", np.zeros((4, 6, 3), np.uint8), 5)
    logger.histogram("weights", np.array([0.25, 0.75, 0.75], np.float32), 5)
    logger.config({"scale": 2, "name": "toy"})
    logger.close()
    events = read(tmp_path)
    (image,) = events.Images("val/a")
    assert (image.step, image.width, image.height) == (5, 6, 4)
    (histogram,) = events.Histograms("weights")
    assert (histogram.step, histogram.histogram_value.num) == (5, 3)
    assert (
        "    name: toy"
        in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    )


def test_a_value_that_is_not_finite_is_no_result_to_compare(tmp_path):
    write_hparams(tmp_path, {"optimizer.lr": 0.5, "on": True}, {"psnr": math.inf, "ssim": 0.25})
    events = read(tmp_path)
    assert events.Tags()["scalars"] == ["best/ssim"]
    assert set(events.PluginTagToContent("hparams")) == {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
    }


def test_results_to_compare_are_those_of_the_last_launch_alone(tmp_path):
    for first_step, best in ((0, 20.0), (3, 21.0)):
        logger = TensorBoardLogger(tmp_path, first_step=first_step)
        logger.scalars({"loss": 1.0}, first_step + 1)
        logger.close()
        write_hparams(tmp_path, {"seed": 1}, {"psnr": best})
    assert [event.value for event in read(tmp_path).Scalars("best/psnr")] == [21.0]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fails_is_told_once_with_its_folder(tmp_path, monkeypatch, capfd):
    def bad(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(RecordWriter, "write", bad)
    with pytest.raises(OSError, match=r"Input/output error: '.*tensorboard'"):
        TensorBoardLogger(tmp_path).scalars({"loss": 1.0}, 1)
    assert "Traceback" not in "".join(capfd.readouterr())
