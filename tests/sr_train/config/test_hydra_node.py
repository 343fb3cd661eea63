"""What a config file may not ask Hydra for, refused before Hydra does it."""

import os
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from sr_train.config.loader import ComposeError, Loader

CANARY = "canary"

ATTACKS = {
    "callback": (
        "hydra: {callbacks: {x: {_target_: os.mkdir, path: canary}}}",
        "hydra.callbacks: no config may add any",
    ),
    "callback of ours changed": (
        "hydra: {callbacks: {sweep: {_target_: os.mkdir, path: canary}}}",
        "hydra.callbacks",
    ),
    "log handler by factory": (
        "hydra: {job_logging: {version: 1, root: {level: INFO}, handlers: "
        "{h: {(): os.mkdir, path: canary}}}}",
        "hydra.job_logging: the program logs by itself",
    ),
    "log handler by class": (
        "hydra: {hydra_logging: {root: {handlers: [h]}, handlers: "
        "{h: {class: logging.FileHandler, filename: canary}}}}",
        "hydra.hydra_logging: the program logs by itself",
    ),
    "launcher": (
        "hydra: {launcher: {_target_: os.mkdir}}",
        "hydra.launcher: expected one that is shipped: hydra/launcher=basic|submitit_local|",
    ),
    "sweeper": (
        "hydra: {mode: MULTIRUN, sweeper: {_target_: os.mkdir}}",
        "hydra.sweeper: expected one that is shipped: hydra/sweeper=basic|optuna",
    ),
    "code in the search": (
        "defaults: [override /hydra/sweeper: optuna]\n"
        "hydra: {sweeper: {custom_search_space: os.mkdir}}",
        "hydra.sweeper.custom_search_space: no config may name code there",
    ),
    "sampler": (
        "defaults: [override /hydra/sweeper: optuna]\n"
        "hydra: {sweeper: {sampler: {_target_: os.mkdir}}}",
        "hydra.sweeper.sampler: expected one that is shipped: hydra/sweeper/sampler=tpe|random|",
    ),
    "node in the sampler": (
        "defaults: [override /hydra/sweeper: optuna, override /hydra/sweeper/sampler: cmaes]\n"
        "hydra: {sweeper: {sampler: {independent_sampler: {_target_: os.mkdir}}}}",
        "hydra.sweeper.sampler.independent_sampler._target_: no component is expected there",
    ),
    "pickles of a storage": (
        "defaults: [override /hydra/sweeper: optuna]\n"
        "hydra: {sweeper: {storage: 'redis://127.0.0.1:1'}}",
        "hydra.sweeper.storage: of other storages than sqlite:///FILE, type it",
    ),
    "a sampler that unpickles": (
        "defaults: [override /hydra/sweeper: optuna, override /hydra/sweeper/sampler: cmaes]\n"
        "hydra: {sweeper: {storage: 'sqlite:///a.db'}}",
        "hydra/sweeper/sampler: cmaes loads a pickle from hydra.sweeper.storage, so type it",
    ),
    "a folder outside the run's": (
        "hydra: {output_subdir: ../../elsewhere}",
        "hydra.output_subdir=../../elsewhere: expected what is shipped, or null",
    ),
    "commands of a cluster": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        "hydra: {launcher: {setup: ['touch canary']}}",
        "hydra.launcher.setup: reaches the cluster's shell, so type it",
    ),
    "parameters of a cluster": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        "hydra: {launcher: {additional_parameters: {wrap: touch}}}",
        "hydra.launcher.additional_parameters: reaches the cluster's shell",
    ),
    "lines in a cluster's script": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        'hydra: {launcher: {partition: "gpu\\ntouch canary"}}',
        "hydra.launcher.partition=gpu\\ntouch canary: expected one line of printable text",
    ),
    "lines by a reference": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        'data: {root: "gpu\\ntouch"}\n'
        "hydra: {launcher: {partition: '${data.root}'}}",
        "hydra.launcher.partition=gpu\\ntouch: expected one line of printable text",
    ),
    "a reference that comes later": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        "hydra: {launcher: {partition: '${hydra:job.name}'}}",
        "hydra.launcher.partition=${hydra:job.name}: cannot be resolved before the launcher starts",
    ),
    "a reference to a mapping": (
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        "hydra: {launcher: {partition: '${hydra.sweep}'}}",
        "hydra.launcher.partition",
    ),
    "environment": (
        "hydra: {job: {env_set: {LD_PRELOAD: ./evil.so}}}",
        "hydra.job.env_set: no config may set the environment",
    ),
    "environment copied": (
        "hydra: {job: {env_copy: [HOME]}}",
        "hydra.job.env_copy: no config may set the environment",
    ),
    "search path": ("hydra: {searchpath: ['pkg://evil']}", "hydra.searchpath"),
    "typed words": (
        "hydra: {overrides: {hydra: ['hydra.launcher.setup=[touch]']}}",
        "hydra.overrides: no config may add any",
    ),
    "typed words of the task": (
        "hydra: {overrides: {task: ['seed=1,2']}}",
        "hydra.overrides: no config may add any",
    ),
}


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """Return a function that composes an experiment and gives what keeps it from composing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # as before any run of this process

    def compose(text: str, *words: str) -> str | None:
        path = tmp_path / "mine/cluster/case.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\n{text}\n")
        loader = Loader(Path("mine"))
        try:
            loader.load_configuration(
                "train", ["+experiment=quickstart", "+cluster=case", *words], RunMode.RUN
            )
        except ComposeError as err:
            return str(err)
        return None

    return compose


@pytest.mark.parametrize("name", ATTACKS)
def test_what_no_config_may_ask_for(fault, name):
    text, says = ATTACKS[name]
    told = fault(text)
    assert told is not None
    assert says in told
    assert not os.path.exists(CANARY)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("defaults: [override /hydra/launcher: submitit_slurm]", "hydra.launcher.setup=[module x]"),
        (
            "defaults: [override /hydra/launcher: submitit_slurm]",
            "+hydra.launcher.additional_parameters.mail=me",
        ),
        (
            "defaults: [override /hydra/sweeper: optuna]",
            "hydra.sweeper.storage='postgresql://db/x'",
        ),
        (
            "defaults: [override /hydra/sweeper: optuna]\n"
            "hydra: {sweeper: {storage: 'sqlite:///a.db'}}",
            "hydra/sweeper/sampler=cmaes",
        ),
    ],
)
def test_what_a_person_types_is_theirs(fault, text, word):
    assert fault(text, word) is None


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [override /hydra/launcher: submitit_slurm]\n"
        "hydra: {mode: MULTIRUN, launcher: {partition: gpu, timeout_min: 60, name: '${name}'}}",
        "defaults: [override /hydra/sweeper: optuna, override /hydra/sweeper/sampler: random]\n"
        "hydra: {mode: MULTIRUN, sweeper: {n_trials: 3, storage: 'sqlite:///a.db', "
        "params: {seed: 'range(1,5)'}, sampler: {seed: '${seed}'}}}",
        "hydra: {run: {dir: elsewhere}}",
    ],
)
def test_what_a_search_or_a_cluster_of_ones_own_needs(fault, text):
    assert fault(text) is None


def test_hydra_writes_no_log_of_its_own(fault):
    assert "expected hydra/job_logging=none" in str(fault("seed: 1", "hydra/job_logging=default"))


def test_no_package_is_imported_by_a_search_path(fault, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/__init__.py").write_text("raise SystemExit('was imported')\n")
    assert fault("hydra: {searchpath: ['pkg://evil']}") is not None


def test_no_package_is_imported_by_an_override_of_a_sweep(fault, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/__init__.py").write_text("raise SystemExit('was imported')\n")
    found = fault("seed: 1", "hydra.searchpath=[pkg://evil]")
    assert "hydra.searchpath: expected --config-dir DIR" in str(found)
