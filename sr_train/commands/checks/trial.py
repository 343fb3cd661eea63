"""Each network and each loss by itself, forward and backward, before they work together.

Also those terms that set in late, so that nothing of a run is met first in the midst of it.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from sr_train.api.errors import SRTrainError
from sr_train.config.schema import RunConfig
from sr_train.engine.adversary import frozen
from sr_train.engine.context import AdversaryContext, LossInputs, StepContext
from sr_train.engine.model import SRModel
from sr_train.engine.objective import Term
from sr_train.engine.untouched import untouched
from sr_train.utils.failures import in_words, users_place
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]


def try_parts(cfg: RunConfig, model: SRModel, batches: Sequence[Batch]) -> tuple[list[str], Batch]:
    """Run every network and every loss term on a batch.

    Weights, buffers and random numbers stay as they are.

    Args:
        cfg: of the run.
        model: that has not begun to learn.
        batches: one or several sizes, small to large; what a part does not take in one size it may
            take in the next: the last one counts.

    Returns:
        What is wrong, a line for each, and the smallest batch that all others take.
    """
    nets = [learner.net for learner in model.learners.values()]
    problems: list[str] = []
    taken = 0
    with untouched(*nets):
        for where, run in _parts(model):
            fault = None
            for place, batch in enumerate(batches):
                fault = _fault(cfg, model, where, run, batch)
                if fault is None:
                    taken = max(taken, place)
                    break
            if fault is not None:
                problems.append(fault)
                if where == "arch":
                    break  # all others would meet it again
    return problems, batches[taken]


def _parts(model: SRModel) -> Iterator[tuple[str, Callable[[StepContext], Tensor]]]:
    """Yield config path and what runs the part on the values of a micro-batch."""
    yield "arch", lambda ctx: ctx.pred.mean()
    for name, term in model.objective.terms.items():
        yield f"objective.{name}", _term(term)
    adversary = model.adversary
    if adversary is None:
        return
    learner = adversary.learner
    for name, term in adversary.objective.terms.items():
        yield f"objective_d.{name}", _term(term, lambda ctx: AdversaryContext(ctx, learner, model))


def _term(
    term: Term, inputs_of: Callable[[StepContext], LossInputs] | None = None
) -> Callable[[StepContext], Tensor]:
    def run(ctx: StepContext) -> Tensor:
        with torch.autocast(ctx.device.type, enabled=False):
            value: Tensor = term(ctx if inputs_of is None else inputs_of(ctx))
            return value

    return run


def _fault(
    cfg: RunConfig,
    model: SRModel,
    where: str,
    run: Callable[[StepContext], Tensor],
    batch: Batch,
) -> str | None:
    """Return what is wrong with a part on a batch; None where nothing is."""
    is_of_discriminator = where.startswith("objective_d.")
    critic = None if is_of_discriminator or model.discriminator is None else model.discriminator.net
    try:
        with nullcontext() if critic is None else frozen(critic):
            value = run(StepContext(model, batch))
            if not bool(torch.isfinite(value)):
                return f"{where}: gives {float(value.detach())} on a training crop"
            if value.requires_grad:
                value.backward()
            elif where == "arch" or not _may_rest(model, where):
                what = "the prediction" if where == "arch" else "its value"
                return (
                    f"{where}: no gradient leads from {what} to the weights; is it detached, or "
                    "made under torch.no_grad()?"
                )
    except SRTrainError as err:
        return explained(cfg, model, where, str(err)) or str(err)
    except Exception as err:
        told = explained(cfg, model, where, str(err))
        if told is not None:
            return told
        if is_out_of_memory(err):
            raise
        if not isinstance(err, RuntimeError) and users_place(err) is None:
            raise  # a defect of ours
        return f"{where}: its backward fails: {in_words(err)}"
    return None


def _may_rest(model: SRModel, where: str) -> bool:
    """Whether a term may be a constant here, as it goes by the step."""
    group, name = where.split(".", 1)
    objective = model.objective
    if group != "objective" and model.adversary is not None:
        objective = model.adversary.objective
    return "step" in objective.terms[name].required_inputs


def explained(cfg: RunConfig, model: SRModel, where: str, text: str) -> str | None:
    """Return what to say where torch cannot do something as it is asked to; None for all else."""
    device = model.device.type
    if cfg.train.deterministic and "deterministic" in text:
        found = re.search(r"(\w+) does not have a deterministic implementation", text)
        operation = found[1] if found else "an operation"
        return (
            f"train.deterministic=true: {where} needs {operation}, which torch cannot do "
            f"deterministically on {device}; set train.deterministic=false, or choose another "
            f"{'network' if where == 'arch' else 'loss'}"
        )
    found = re.search(r"[\w.]+\W? not implemented for '(Half|BFloat16)'", text)
    if found is None:
        return None
    return (
        f"precision.name={model.precision.name}: {where} needs {found[0]} on {device}; take "
        "precision=fp32, or auto"
    )
