"""`export`: write a network's weights as .safetensors."""

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from sr_train.api.errors import ConfigError, raise_all
from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.config.build import at_scale
from sr_train.config.compose import typed
from sr_train.config.preflight import use_problems
from sr_train.config.schema import ExportConfig
from sr_train.engine.weights import save_weights
from sr_train.factory import networks
from sr_train.io.files import remove_leftovers
from sr_train.monitoring.console import console, start_logging
from sr_train.utils.command_lines import command_line
from sr_train.utils.signals import Stop


def run(cfg: DictConfig) -> None:
    """Write a network's weights with architecture and scale in the metadata.

    Raises:
        SRTrainError: for everything a user can fix.
        SystemExit: where a signal ended it; nothing is written then.
    """
    start_logging()
    config = with_plugins_of_run(typed(cfg, ExportConfig))
    raise_all(use_problems(config))
    with Stop("ends; nothing is written", at_once=True):
        _export(config)


def _export(config: ExportConfig) -> None:
    output = Path(config.output).expanduser()
    if output.suffix != ".safetensors":
        raise ConfigError(f"output={output}: expected a name that ends in .safetensors")
    if output.exists() and not config.overwrite:
        raise ConfigError(f"output={output}: exists; choose another name, or overwrite=true")
    net, spec, weights = networks.load_for_use(config)
    if config.arch is not None:
        card = networks.card_of(at_scale(config.arch, spec.scale, config.plugins), spec)
    else:
        assert weights.card is not None
        card = weights.card
    kind = weights.card.weights if weights.card is not None else "live"
    remove_leftovers(output.parent)
    save_weights(output, net, replace(card, weights=kind, padding=networks.padding_of(spec)))
    count = sum(p.numel() for p in net.parameters())
    console.print(
        f"written  {output}  ({type(net).__name__} x{spec.scale}, {count:,} parameters, "
        f"{kind} weights, {output.stat().st_size / 2**20:.2f} MiB)"
    )
    plugins = [f"plugins=[{','.join(config.plugins)}]"] if config.plugins else []
    words = ["infer", f"checkpoint={output}", *plugins, "input=IMAGE_OR_FOLDER"]
    console.print(f"\ntry next\n  {command_line(*words, 'output=upscaled')}")
