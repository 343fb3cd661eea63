"""Commands get facts by their environment, webhooks by JSON; nothing of it ends a run."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sr_train.api.callback import Outcome, Run
from sr_train.callbacks.notification import COMMAND, URL, Notification

ERROR = Outcome("error", "it broke: $(touch canary) `touch canary`; touch canary")


class Model:
    class generator:
        steps = 4


def run_of(folder, **facts):
    return Run(Model(), 10, folder / "runs/my run", print, **facts)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.delenv(COMMAND, raising=False)
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_a_command_finds_the_facts_in_its_environment_and_runs_none_of_them(environment, tmp_path):
    environment.setenv(COMMAND, 'env | grep ^SR_TRAIN_ > told; echo "$SR_TRAIN_REASON" > why')
    notification = Notification()
    notification.on_validation_end(run_of(tmp_path), {"psnr_y": 31.5})
    notification.on_run_end(run_of(tmp_path), ERROR)
    told = dict(line.split("=", 1) for line in Path("told").read_text().splitlines())
    assert (told["SR_TRAIN_NAME"], told["SR_TRAIN_OUTCOME"]) == ("my run", "error")
    assert (told["SR_TRAIN_STEP"], told["SR_TRAIN_STEPS"]) == ("4", "10")
    assert json.loads(told["SR_TRAIN_SCORES"]) == {"psnr_y": 31.5}
    assert Path("why").read_text() == f"{ERROR.reason}\n"
    assert not Path("canary").exists()


@pytest.fixture
def server():
    """Return a server, what it was sent, and the code that it answers with."""
    sent, answer = [], [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(answer[0])
            self.end_headers()

        def log_message(self, *given):
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", sent, answer
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_json(environment, tmp_path, server, caplog):
    address, sent, answer = server
    environment.setenv(URL, address)
    Notification().on_run_end(run_of(tmp_path), Outcome("stopped", "enough"))
    (kind, facts), *more = sent
    assert (kind, more) == ("application/json", [])
    assert (facts["name"], facts["outcome"], facts["reason"]) == ("my run", "stopped", "enough")
    assert (facts["step"], facts["scores"]) == (4, {})
    answer[0] = 500
    Notification().on_run_end(run_of(tmp_path), Outcome("complete"))
    assert "warning: notification: SR_TRAIN_NOTIFY_URL: HTTPError" in caplog.text


@pytest.mark.parametrize(
    ("command", "said"),
    [("exit 3", "ended with exit code 3"), ("sleep 60 & sleep 60", "took over 0.2 s")],
)
def test_a_failing_command_is_a_warning(environment, tmp_path, caplog, command, said):
    environment.setenv(COMMAND, command)
    started = time.perf_counter()
    Notification(timeout_sec=0.2).on_run_end(run_of(tmp_path), Outcome("complete"))
    assert said in caplog.text
    assert time.perf_counter() - started < 10


def test_a_server_that_is_not_there_is_a_warning(environment, tmp_path, caplog):
    environment.setenv(URL, "http://127.0.0.1:1/hook")
    Notification(timeout_sec=1.0).on_run_end(run_of(tmp_path), Outcome("complete"))
    assert "warning: notification: SR_TRAIN_NOTIFY_URL: URLError" in caplog.text


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [({"rank": 1}, "error"), ({"is_rehearsal": True}, "error"), ({}, "complete")],
)
def test_other_ranks_rehearsals_and_other_outcomes_send_nothing(
    environment, tmp_path, facts, outcome
):
    environment.setenv(COMMAND, "touch told")
    Notification(["error"]).on_run_end(run_of(tmp_path, **facts), Outcome(outcome))
    assert not Path("told").exists()


def test_what_cannot_work_is_told_at_once(environment):
    with pytest.raises(ValueError, match=f"set {COMMAND} or {URL} in your shell"):
        Notification()
    environment.setenv(URL, "file:///etc/passwd")
    with pytest.raises(ValueError, match="https"):
        Notification()
    environment.setenv(URL, "https://example.org")
    with pytest.raises(ValueError, match=r"outcomes=\['end'\]"):
        Notification(["end"])
    with pytest.raises(ValueError, match="timeout_sec"):
        Notification(timeout_sec=0)
