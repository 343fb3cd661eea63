"""Telling somebody how a run ended."""

import json
import logging
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from sr_train.api.callback import Callback, Outcome, Run

log = logging.getLogger(__name__)

COMMAND = "SR_TRAIN_NOTIFY_COMMAND"
"""Environment variable that holds a shell command."""

URL = "SR_TRAIN_NOTIFY_URL"
"""Environment variable that holds the address of a webhook."""

_OUTCOMES = ("complete", "stopped", "signal", "error")


class Notification(Callback):
    """Run a shell command, or send a JSON POST to a webhook, when the run ends.

    What is run and where it is sent stand in the environment of whoever starts the run, and in no
    config: a config may come from somebody else, and an earlier run's is read again by a resume.

        export SR_TRAIN_NOTIFY_COMMAND='notify-send "$SR_TRAIN_NAME" "$SR_TRAIN_OUTCOME"'
        export SR_TRAIN_NOTIFY_URL=https://ntfy.sh/MY_TOPIC

    The command finds the facts in its environment: SR_TRAIN_NAME, SR_TRAIN_OUTCOME (one of
    `outcomes`), SR_TRAIN_REASON, SR_TRAIN_STEP, SR_TRAIN_STEPS, SR_TRAIN_FOLDER, SR_TRAIN_HOST and
    SR_TRAIN_SCORES (JSON). The webhook gets the same by name, lower case without SR_TRAIN_. What
    fails or takes too long is a warning in the log, and never ends a run.

    Args:
        outcomes: ends to report: complete, stopped (by a callback), signal, error.
        timeout_sec: that the command or the webhook may take; above 0.
    """

    def __init__(self, outcomes: Sequence[str] = _OUTCOMES, timeout_sec: float = 10.0) -> None:
        unknown = [each for each in outcomes if each not in _OUTCOMES]
        if unknown or not outcomes:
            raise ValueError(f"outcomes={list(outcomes)}: expected some of {', '.join(_OUTCOMES)}")
        if not timeout_sec > 0:
            raise ValueError(f"timeout_sec={timeout_sec}: expected seconds above 0")
        self.outcomes = tuple(outcomes)
        self.timeout_sec = timeout_sec
        self._command = os.environ.get(COMMAND, "")
        self._url = os.environ.get(URL, "")
        self._scores: dict[str, float] = {}
        if not self._command and not self._url:
            raise ValueError(f"set {COMMAND} or {URL} in your shell; no config may hold them")
        if self._url and urlsplit(self._url).scheme not in {"http", "https"}:
            raise ValueError(f"{URL}: expected an address that begins with https:// or http://")

    def on_validation_end(self, run: Run, scores: Mapping[str, float]) -> None:
        self._scores = dict(scores)

    def on_run_end(self, run: Run, outcome: Outcome) -> None:
        """Report the end, where it is one of those to report."""
        if not run.is_main or outcome.kind not in self.outcomes:
            return
        if run.is_rehearsal:
            host = urlsplit(self._url).hostname
            ways = [f"run {COMMAND}"] if self._command else []
            ways += [f"send to {host} ({URL})"] if self._url else []
            log.info("notification: the end of the run would %s", " and ".join(ways))
            return
        facts = self._facts(run, outcome)
        if self._command:
            self._run_command(facts)
        if self._url:
            self._post(facts)

    def _facts(self, run: Run, outcome: Outcome) -> dict[str, Any]:
        return {
            "name": run.folder.name,
            "outcome": outcome.kind,
            "reason": outcome.reason,
            "step": run.step,
            "steps": run.steps,
            "folder": str(run.folder.absolute()),
            "host": socket.gethostname(),
            "scores": self._scores,
        }

    def _run_command(self, facts: Mapping[str, Any]) -> None:
        """Run the command in a shell of its own, and end all of it where it takes too long."""
        told = {f"SR_TRAIN_{name.upper()}": _text(value) for name, value in facts.items()}
        try:
            process = subprocess.Popen(
                self._command,
                shell=True,
                env={**os.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as err:
            log.warning("warning: notification: %s: %s", COMMAND, err)
            return
        try:
            code = process.wait(self.timeout_sec)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.warning("warning: notification: %s took over %g s", COMMAND, self.timeout_sec)
            return
        if code != 0:
            log.warning("warning: notification: %s ended with exit code %d", COMMAND, code)

    def _post(self, facts: Mapping[str, Any]) -> None:
        try:
            request = urllib.request.Request(
                self._url,
                data=json.dumps(facts).encode(),
                headers={"Content-Type": "application/json"},
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=self.timeout_sec):
                pass
        except Exception as err:  # whatever a server or a network does
            log.warning("warning: notification: %s: %s: %s", URL, type(err).__name__, err)


def _text(value: Any) -> str:
    """Return a value of an environment variable, which can hold no NUL."""
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text.replace("\0", " ")
