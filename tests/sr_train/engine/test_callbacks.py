"""Who is called when, with what, and what becomes of a failure, a stop and a state."""

from pathlib import Path

import pytest
import torch

from sr_train.api.callback import EVENTS, Callback, Outcome, Run
from sr_train.api.errors import ConfigError, PluginError
from sr_train.engine.best import Best
from sr_train.engine.callbacks import Callbacks, directions, restore_callbacks, state_of
from sr_train.engine.distributed import World


class Model:
    class generator:
        steps = 7


class Recorder(Callback):
    """Notes each call; fails or stops where it is told to."""

    def __init__(self, calls, name, fails_at="", stops_at=""):
        self.calls, self.name, self.fails_at, self.stops_at = calls, name, fails_at, stops_at

    def _note(self, event, run):
        self.calls.append((self.name, event))
        if event == self.stops_at:
            run.stop("enough")
        if event == self.fails_at:
            raise RuntimeError("broken")


def _method(event):
    def method(self, run, *given):
        self._note(event, run)

    return method


for _event in EVENTS:
    setattr(Recorder, _event, _method(_event))


def callbacks_of(world=None, **parts):
    run = Run(Model(), 10, Path("nowhere"), print)
    return Callbacks(parts, run, World() if world is None else world)


def run_through(callbacks):
    with callbacks.running():
        for event in EVENTS[1:-1]:
            callbacks.call(event)


def test_callbacks_are_called_in_their_order():
    calls = []
    callbacks = callbacks_of(a=Recorder(calls, "a"), b=Recorder(calls, "b"))
    with callbacks.running():
        callbacks.call("on_step_start")
    expected = ("on_run_start", "on_step_start", "on_run_end")
    assert calls == [(name, event) for event in expected for name in "ab"]


def test_an_event_that_is_not_overridden_has_no_listener():
    class Ends(Callback):
        def on_run_end(self, run, outcome):
            self.outcome = outcome

    callbacks = callbacks_of(ends=Ends(), nothing=Callback())
    heard = {event: [path for path, _ in found] for event, found in callbacks._listeners.items()}
    assert heard == {**{event: [] for event in EVENTS}, "on_run_end": ["ends"]}
    with callbacks.running():
        pass
    assert callbacks.parts["ends"].outcome == Outcome("complete")


@pytest.mark.parametrize("event", EVENTS[:-1])
def test_a_failure_names_the_callback_and_event_and_mutes_all_but_the_end(event):
    calls = []
    callbacks = callbacks_of(mine=Recorder(calls, "mine", event), other=Recorder(calls, "other"))
    said = f"mine: Recorder failed on {event}, step 7: RuntimeError: broken"
    with pytest.raises(PluginError, match=said):
        run_through(callbacks)
    assert calls[-2:] == [("mine", "on_run_end"), ("other", "on_run_end")]
    assert calls[-3] == ("mine", event)


def test_a_config_error_of_a_callback_names_it():
    class Picky(Callback):
        def on_run_start(self, run):
            raise ConfigError("metric=x: no such score")

    with pytest.raises(ConfigError, match=r"^callbacks\.picky: metric=x: no such score$"):
        callbacks_of(**{"callbacks.picky": Picky()}).call("on_run_start")


def test_every_callback_ends_even_where_one_cannot(caplog):
    calls = []
    parts = {"a": Recorder(calls, "a", "on_run_end"), "b": Recorder(calls, "b")}
    with pytest.raises(PluginError, match="a: Recorder failed on on_run_end"):
        run_through(callbacks_of(**parts))
    assert ("b", "on_run_end") in calls
    with pytest.raises(KeyError), callbacks_of(**parts).running():
        raise KeyError("the first error is the one that counts")
    assert "a: Recorder failed on on_run_end" in caplog.text


def test_a_stop_names_who_asked_for_it_and_the_first_one_counts():
    callbacks = callbacks_of(
        a=Recorder([], "a", stops_at="on_log"), b=Recorder([], "b", stops_at="on_step_end")
    )
    callbacks.agree(at_once=True)
    assert callbacks.stopped is None
    callbacks.call("on_step_end")
    callbacks.call("on_log")
    callbacks.agree(at_once=False)
    assert callbacks.stopped == "b: enough"


class Ranks(World):
    """Two ranks, of which this is the first; the other says what it is told to."""

    def __new__(cls, others):
        return super().__new__(cls)

    def __init__(self, others):
        super().__init__(rank=0, size=2)
        object.__setattr__(self, "others", list(others))

    def gather(self, item):
        return [item, self.others.pop(0)]


def test_ranks_agree_where_all_of_them_are_at_the_same_event():
    callbacks = callbacks_of(Ranks([None, "b: late"]), a=Recorder([], "a"))
    callbacks.agree(at_once=False)
    callbacks.agree(at_once=True)
    assert callbacks.stopped is None
    callbacks.agree(at_once=True)
    assert callbacks.stopped == "b: late"


def test_ranks_without_callbacks_exchange_nothing():
    callbacks_of(Ranks([])).agree(at_once=True)


@pytest.mark.parametrize(
    ("error", "expected"), [(None, "complete"), (ValueError("bad"), "error")], ids=str
)
def test_the_outcome_says_how_a_run_ended(error, expected):
    class Ends(Callback):
        def on_run_end(self, run, outcome):
            self.outcome = outcome

    callbacks = callbacks_of(ends=Ends())
    try:
        with callbacks.running():
            if error is not None:
                raise error
    except ValueError:
        pass
    outcome = callbacks.parts["ends"].outcome
    assert (outcome.kind, outcome.error) == (expected, error)
    callbacks.stopped = "a: enough"
    assert callbacks._outcome() == Outcome("stopped", "a: enough")
    callbacks.signal = "SIGTERM"
    assert callbacks._outcome() == Outcome("signal", "SIGTERM")


class Counter(Callback):
    def __init__(self, count=0):
        self.count = count

    def state_dict(self):
        return {"count": self.count, "more": [1.5, None, {"w": torch.ones(2)}]}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_states_are_restored_by_config_path():
    stored = callbacks_of(a=Counter(3), b=Callback()).state_dict()
    again = {"a": Counter(), "new": Counter()}
    assert restore_callbacks(again, {**stored, "gone": {"x": 1}}) == [
        "stored state of gone dropped",
        "new starts anew",
    ]
    assert again["a"].count == 3


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {1, 2}}, r"state_dict\(\)\['a'\], a set, is not what"),
        ({"a": [Path("x")]}, r"state_dict\(\)\['a'\]\[0\], a PosixPath, is"),
        ({"a": torch.ones(2).numpy()}, "a ndarray"),
        ({1: "a"}, "a dict"),
        (None, r"state_dict\(\) is not"),
    ],
    ids=str,
)
def test_a_state_that_no_file_could_hold_is_refused_when_it_is_saved(state, said):
    class Odd(Callback):
        def state_dict(self):
            return state

    with pytest.raises(PluginError, match=f"callbacks.odd: Odd: .*{said}"):
        state_of("callbacks.odd", Odd())


def test_scores_and_their_directions_have_the_same_names():
    best = {"psnr_y": Best(True), "lpips": Best(False)}
    assert directions(best, ["set5"]) == {
        "psnr_y": True,
        "lpips": False,
        "set5/psnr_y": True,
        "set5/lpips": False,
    }
    assert directions(best, []) == {}
