"""Whether a training state fits a model, asked before anything of the model is changed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sr_train.api.errors import CheckpointError
from sr_train.engine.fitting import fit_of, phrase

if TYPE_CHECKING:
    from sr_train.engine.model import SRModel


def check_fits(state: Mapping[str, Any], model: "SRModel") -> None:
    """Raise where a state of the right parts is of other networks, or of spoilt weights.

    Raises:
        CheckpointError: naming each part that does not fit.
    """
    generator = model.generator
    faults = _net_faults("net_g", state["net_g"], generator.net)
    faults += _learner_faults("generator", generator.faults(state["generator"]))
    for name in model.averages:
        if state[name] is not None:
            faults += _net_faults(name, state[name]["net"], generator.net)
    if model.adversary is not None and state["adversary"] is not None:
        learner = model.adversary.learner
        faults += _net_faults("adversary.net", state["adversary"]["net"], learner.net)
        faults += _learner_faults(
            "adversary.learner", learner.faults(state["adversary"]["learner"])
        )
    if faults:
        raise CheckpointError(
            "the stored weights do not fit the network:\n  - " + "\n  - ".join(faults)
        )


def _learner_faults(where: str, told: Sequence[str]) -> list[str]:
    return [f"{where}: {fault}" for fault in phrase("unfit for the optimizer", told)]


def _net_faults(where: str, tensors: Mapping[str, Any], net: nn.Module) -> list[str]:
    weights = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    # Statistics that a step with a NaN has spoilt are no weights, and are found again.
    fit = fit_of(net, weights, values={name for name, _ in net.named_parameters()})
    return [f"{where}: {fault}" for fault in (*fit.misfits, *fit.spoilt)]
