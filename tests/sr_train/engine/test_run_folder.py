import pytest

from sr_train.api.errors import ConfigError
from sr_train.engine.run_folder import RunFolder


def test_two_processes_cannot_write_into_one_run(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.lock(), pytest.raises(ConfigError, match="another process"):
        second.lock()
    with second.lock():
        pass


@pytest.mark.parametrize("left", ["metrics.csv", "checkpoints/last.safetensors"])
def test_a_used_folder_is_refused(tmp_path, left):
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,name,value\n")  # what a failed launch leaves
    folder.refuse_if_used()
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("step,name,value\n1,loss/l1,0.5\n")
    with pytest.raises(ConfigError, match="resume=auto"):
        folder.refuse_if_used()


@pytest.mark.parametrize("name", ["train.log", "metrics.csv"])
def test_no_line_is_added_to_what_a_link_leads_to(tmp_path, name):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    RunFolder(tmp_path / "run").tidy()
    assert not (tmp_path / "run" / name).exists()
    assert (tmp_path / "run" / f"{name}.bad").is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("name", ["samples/step_00000002.png", "train.log", "manifest.json"])
def test_a_folder_in_the_place_of_a_file_is_set_aside(tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    RunFolder(tmp_path / "run").tidy()
    assert not (tmp_path / "run" / name).exists()
    assert (tmp_path / "run" / f"{name}.bad").is_dir()
