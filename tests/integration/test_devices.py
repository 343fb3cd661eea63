"""Commands told to work on the CPU leave a GPU of the machine alone."""

import pytest
import torch

from tests.toys import toy_words


@pytest.fixture
def idle_gpu(monkeypatch):
    """Let the machine have a GPU that must not be used."""

    def start():
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", start)


def test_no_command_on_the_cpu_starts_a_gpu(idle_gpu, command, in_folder):
    words = toy_words(in_folder, "optimizer=sgd")  # torch's own Adam asks every GPU for its stream
    command("check", *words).succeeds()
    command("overfit", *words, "name=tiny", "num_steps=2")
    command("train", *words, "train.steps=2", "train.checkpoint_every=1").succeeds()
    command("train", *words, "resume=auto").succeeds()
    use = ("checkpoint=runs/toy", "device=cpu")
    command("validate", *use, "+dataset=main", "data.val.main.gt=val", "output=scores").succeeds()
    command("infer", *use, "input=val", "output=up").succeeds()
    command("infer", *use, "input=val", "output=tiles", "tiling.tile=16").succeeds()
    command("export", "checkpoint=runs/toy", "output=toy.safetensors").succeeds()
