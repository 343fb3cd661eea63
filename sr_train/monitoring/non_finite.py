"""The watch over non-finite numbers: counts them, names them, ends a run that is lost."""

import io
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sr_train.api.errors import SRTrainError
from sr_train.api.text import first_few
from sr_train.io.files import write_atomically

log = logging.getLogger(__name__)


_ADVICE = {
    "net_g": "a smaller learning rate, train.max_norm=1",
    "net_d": "a smaller discriminator.lr, discriminator.max_norm=1, objective_d=[gan,r1]",
}


class NonFiniteError(SRTrainError):
    """Training was stopped because losses or gradients stayed non-finite."""


class NonFiniteMonitor:
    """Report skipped steps at the log interval and stop after too many in a row.

    Args:
        limit: this many skipped steps in a row end the run.
        folder: where the batch at fault is written.
        rank: of several processes, each of which writes its own batch; None: only this one.
    """

    def __init__(self, limit: int, folder: Path, rank: int | None = None) -> None:
        self.limit = limit
        self.folder = folder
        self.rank = rank

    def report(
        self, skipped: int, steps: int, non_finite: Mapping[str, int], step: int, network: str
    ) -> None:
        """Say how many of a network's last steps were skipped and which scalars not finite."""
        if skipped == 0:
            return
        named = ", ".join(f"{name} ({count})" for name, count in non_finite.items())
        log.warning(
            "warning: step %d: %d of the last %d steps of %s skipped, loss or gradient was not "
            "finite; weights, optimizer and averages untouched; non-finite values: %s",
            step,
            skipped,
            steps,
            network,
            named or "none in the losses, so in the backward pass",
        )

    def stop(
        self,
        step: int,
        in_row: int,
        batch: Mapping[str, Tensor],
        terms: list[str],
        parameters: list[str],
        network: str = "net_g",
    ) -> NonFiniteError:
        """Write the batch at fault to disk and return the error that ends the run."""
        name = f"non_finite_step_{step:08d}"
        part = "" if self.rank is None else f"_rank{self.rank}"
        place = f"batch saved: {self.folder / name}{part and '_rank*'}.pt"
        content = io.BytesIO()
        torch.save({name: value.cpu() for name, value in batch.items()}, content)
        try:
            write_atomically(self.folder / f"{name}{part}.pt", content.getbuffer(), sync=False)
        except OSError as err:
            place = f"the batch could not be saved: {err.strerror}"
        shown = first_few(parameters)
        pixels = [
            name
            for name, value in batch.items()
            if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ]
        return NonFiniteError(
            f"step {step}: {in_row} steps in a row of {network} had a non-finite loss or gradient "
            f"(train.max_skipped_in_row={self.limit}).\n"
            f"  batch with non-finite pixels: {', '.join(pixels) or 'no'}\n"
            f"  loss terms: {', '.join(terms) or 'all finite, so the backward pass is at fault'}\n"
            f"  parameters: {shown or 'none in the last step'}\n"
            f"  {place}\n"
            f"  try {_ADVICE[network]}, or precision=fp32"
        )
