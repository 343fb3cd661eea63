"""Somebody else's experiment file: looked at and refused, with nothing of it done."""

from pathlib import Path

import pytest
import torch

from tests.toys import no_validation, toy_words

CALL = "{_target_: os.mkdir, path: canary}"

NET = "arch: {_target_: archs.compact.SRVGGNetCompact, scale: 2, num_feat: 4, num_conv: 0}\n"

ATTACKS = {
    "a walk to a function": "arch: {_target_: sr_train.cli.entry.os.mkdir, path: canary}",
    "a walk to another": "objective: {x: {loss: {_target_: sr_train.cli.sweeping.shutil.copyfile, "
    "src: gt/p0.png, dst: canary}}}",
    "a walk through torch": "data: {val: {main: {_target_: torch.nn.functional.torch.load, "
    "f: evil.pth, weights_only: false}}}",
    "a loader of torch": "data: {train: {include: [{_target_: torch.load, f: evil.pth, "
    "weights_only: false}]}}",
    "torch's hub": "data: {train: {include: [{_target_: torch.hub.load, repo_or_dir: hub, "
    "model: x, source: local}]}}",
    "in a list": f"data: {{train: {{include: [{CALL}]}}}}",
    "in a list of lists": f"data: {{train: {{include: [[[{CALL}]]]}}}}",
    "in a mapping in a list": f"metrics: {{psnr_y: {{border: [{{a: {CALL}}}]}}}}",
    "as an argument": f"arch: {{scale: {CALL}}}",
    "as a metric": f"metrics: {{x: {CALL}}}",
    "as a logger": f"logger: {{x: {CALL}}}",
    "as a callback of the run": f"callbacks: {{x: {CALL}}}",
    "a command to run at the end": "callbacks: {x: {_target_: "
    "sr_train.callbacks.notification.Notification, command: touch canary}}",
    "a variable of a command": "callbacks: {x: {_target_: "
    "sr_train.callbacks.notification.Notification}}\n"
    "hydra: {job: {env_set: {SR_TRAIN_NOTIFY_COMMAND: touch canary}}}",
    "as a stream": f"data: {{stream: {CALL}}}",
    "as an optimizer": "optimizer: {_target_: os.mkdir, _partial_: true}",
    "as a setting": f"tiling: {{tile: {CALL}}}",
    "by Hydra itself": "arch: {_target_: hydra.utils.instantiate, config: {_target_: os.mkdir}}",
    "by functools": "arch: {_target_: functools.partial, _args_: [os.mkdir]}",
    "by positions": "arch: {_args_: [canary], _target_: archs.compact.SRVGGNetCompact}",
    "a method": "arch: {_target_: archs.compact.SRVGGNetCompact.load_state_dict, state_dict: {}}",
    "torch as a plug-in": "plugins: [torch]\nobjective: {x: {loss: {_target_: torch.load, "
    "f: evil.pth, weights_only: false}}}",
    "Python as a plug-in": f"plugins: [os]\narch: {CALL}",
    "the program as a plug-in": "plugins: [sr_train]\narch: {_target_: sr_train.cli.entry.main}",
    "the folder as a plug-in": f"plugins: ['.']\narch: {CALL}",
    "everything as a plug-in": f"plugins: ['']\narch: {CALL}",
    "a tag": "arch: !!python/object/apply:os.mkdir [canary]",
    "a target by reference": "name: os.mkdir\narch: {_target_: '${name}', path: canary}",
    "a target from the environment": "arch: {_target_: '${oc.env:HOSTILE}', path: canary}",
    "a target that is decoded": "arch: '${oc.decode:\"{_target_: os.mkdir, path: canary}\"}'",
    "a target that is made": 'objective: "${oc.create:{x: {loss: {_target_: os.mkdir}}}}"',
    "a key by reference": "arch: {'${oc.env:KEY}': os.mkdir, path: canary}",
    "twice resolved": "arch: {activation: '\\${oc.decode:\"{_target_: os.mkdir}\"}'}",
    "a callback": f"hydra: {{callbacks: {{x: {CALL}}}}}",
    "a log handler": "hydra: {job_logging: {root: {level: INFO, handlers: [h]}, handlers: "
    "{h: {(): os.mkdir, path: canary}}}}",
    "a launcher": "hydra: {mode: MULTIRUN, launcher: {_target_: os.mkdir}}",
    "the environment": "hydra: {job: {env_set: {LD_PRELOAD: ./evil.so}}}",
    "a search path": "hydra: {searchpath: ['pkg://evil']}",
    "a foreign module": "arch: {_target_: archs.evil.Net}",
    "a module of the folder": "arch: {_target_: evil.Net}",
    "a config outside": "defaults: [../../../outside]",
}


@pytest.fixture
def hostile(command, in_folder, monkeypatch):
    """Return a function that runs a command on an experiment file, in a hostile folder."""
    monkeypatch.setenv("HOSTILE", "os.mkdir")
    monkeypatch.setenv("KEY", "_target_")
    words = toy_words(in_folder)
    for name in ("evil", "archs", "hub"):
        (in_folder / name).mkdir()
        for file in ("__init__", "evil", "hubconf"):
            (in_folder / name / f"{file}.py").write_text("import os\nos.mkdir('canary')\n")
    torch.save(Evil(), in_folder / "evil.pth")
    (in_folder / "outside.yaml").write_text(f"# @package _global_\narch: {CALL}\n")

    def run(text: str, name: str = "check"):
        path = in_folder / "conf/experiment/case.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}\n")
        kept = [word for word in words if not word.startswith("arch")]
        given = ["arch=compact", *kept] if "arch: " not in text else kept
        return command(name, "--config-dir", "conf", "+experiment=case", *given)

    return run


class Evil:
    def __reduce__(self):
        return Path.mkdir, (Path("canary"),)


QUICK = (
    *("a walk to another", "a loader of torch", "in a list of lists", "torch as a plug-in"),
    *(
        "a callback",
        "a command to run at the end",
        "a log handler",
        "a foreign module",
        "a target from the environment",
    ),
)
"""The kinds; the others are tried as whole commands by the slow tests."""


@pytest.mark.parametrize(
    "attack",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ATTACKS],
)
@pytest.mark.parametrize("name", ["check", pytest.param("train", marks=pytest.mark.slow)])
def test_nothing_of_a_hostile_experiment_is_done(hostile, in_folder, attack, name):
    done = hostile(ATTACKS[attack], name)
    assert not list(in_folder.glob("**/canary")), done
    done.fails_with("error: ")


def test_a_config_that_only_uses_what_is_shipped_stays_short(hostile):
    hostile(f"{NET}metrics: {{psnr_y: {{border: 0}}}}").succeeds()


def test_validate_makes_nothing_of_a_hostile_data_set(hostile, command, in_folder):
    command("train", *no_validation(*toy_words(in_folder))).succeeds()
    path = in_folder / "conf/dataset/case.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package data.val\nmain: {CALL}\n")
    words = ["--config-dir", "conf", "dataset=case", "checkpoint=runs/toy"]
    command("validate", *words).fails_with("outside the allowed packages")
    assert not (in_folder / "canary").exists()
