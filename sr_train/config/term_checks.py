"""Problems of loss terms and of the discriminator that can be found before anything is built."""

from collections.abc import Iterator, Sequence
from typing import Any

from sr_train.api import loss_inputs
from sr_train.api.errors import ConfigError
from sr_train.config.build import is_node, resolve_target
from sr_train.config.schema import RunConfig
from sr_train.config.settings import TermConfig

FEATURES = {"fake_features", "real_features"}


def term_problems(cfg: RunConfig) -> Iterator[str]:
    """Yield every problem of the terms of both networks."""
    if not cfg.objective:
        yield "objective: no term; expected at least one, for example objective=[l1]"
    available_inputs = loss_inputs.GENERATOR
    if cfg.discriminator.arch is not None:
        available_inputs += loss_inputs.DISCRIMINATOR_INPUTS
    for name, term in cfg.objective.items():
        where = f"objective.{name}"
        yield from _common(cfg, where, term, available_inputs)
        if not cfg.ema.enabled and "ema_pred" in required_inputs(term.loss, cfg.plugins):
            yield f"{where}: asks for ema_pred, but ema.enabled=false; expected true"
    for name, term_d in cfg.objective_d.items():
        yield from _common(cfg, f"objective_d.{name}", term_d, loss_inputs.ADVERSARY)


def gan_problems(cfg: RunConfig) -> Iterator[str]:
    """Yield what does not fit between discriminator and terms."""
    wanted = cfg.discriminator
    if wanted.arch is None:
        if cfg.objective_d:
            yield "objective_d: has terms, but there is no discriminator; add discriminator=unet_sn"
        return
    if not cfg.objective_d:
        yield "objective_d: no term for the discriminator; add objective_d=[gan]"
    required = {
        name: required_inputs(term.loss, cfg.plugins) for name, term in cfg.objective.items()
    }
    if not any(names & set(loss_inputs.DISCRIMINATOR_INPUTS) for names in required.values()):
        yield "objective: no term asks for the discriminator; add one, for example gan"
    if not _gives_features(wanted.arch, cfg.plugins):
        for name in [name for name, names in required.items() if names & FEATURES]:
            yield (
                f"objective.{name}: asks for the discriminator's features, but the forward of "
                f"{wanted.arch['_target_']} takes no with_features; expected "
                "forward(image, with_features=False) -> logits, or (logits, features)"
            )
    yield from wanted.problems("discriminator")


def required_inputs(node: Any, plugins: Sequence[str]) -> set[str]:
    """Return the names that the loss of a node asks for; nothing where it cannot be found."""
    try:
        forward = _forward(node, plugins)
        return set() if forward is None else set(loss_inputs.names_of(forward))
    except ConfigError:
        return set()


def _common(
    cfg: RunConfig, where: str, term: TermConfig, available_inputs: Sequence[str]
) -> Iterator[str]:
    yield from term.problems(where)
    try:
        forward = _forward(term.loss, cfg.plugins)
    except ConfigError:
        return  # the check of components reports it
    if forward is not None:
        try:
            loss_inputs.resolve_inputs(forward, where, available_inputs)
        except ConfigError as err:
            yield str(err)


def _gives_features(arch: Any, plugins: Sequence[str]) -> bool:
    """Whether a discriminator can return its features; True where it cannot be found."""
    try:
        forward = _forward(arch, plugins, "network")
    except ConfigError:
        return True  # the check of components reports it
    return forward is None or "with_features" in loss_inputs.names_of(forward)


def _forward(node: Any, plugins: Sequence[str], kind: str = "loss") -> Any:
    if not is_node(node):
        return None
    return getattr(resolve_target(node["_target_"], kind, plugins, kind), "forward", None)
