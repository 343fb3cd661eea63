"""Finding the operation whose gradient is NaN."""

import torch

from sr_train.api.callback import Callback, Outcome, Run


class DetectAnomaly(Callback):
    """Run with torch's anomaly detection: a NaN in the backward pass names the forward operation.

    Steps take about twice as long. Half precision overflows as a matter of course while its loss
    scale is found, which ends the run here, so choose precision=fp32.
    """

    def __init__(self) -> None:
        self._before = False

    def on_run_start(self, run: Run) -> None:
        self._before = torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(True)

    def on_run_end(self, run: Run, outcome: Outcome) -> None:
        torch.autograd.set_detect_anomaly(self._before)
