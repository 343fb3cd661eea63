"""Training states of earlier layouts, brought into the words of today before they are looked at."""

from collections.abc import Mapping
from typing import Any

from sr_train.config.old_names import in_new_names
from sr_train.engine.adaptive import ADAPTIVE_PACE, ADAPTIVE_PRECISION

_CALLBACKS = {"precision": ADAPTIVE_PRECISION, "pace": ADAPTIVE_PACE}
"""What `policies` of layouts up to 3 became."""

_ADAPTIVE_PRECISION = {
    "ladder": "levels",
    "troubled": "bad_windows",
    "calm": "good_windows",
    "needed": "good_windows_needed",
}


def in_new_words(state: dict[str, Any]) -> dict[str, Any]:
    """Return a training state with the keys that today's program reads; values stay as they are.

    Whether all parts are there is checked afterwards.
    """
    if "policies" not in state:
        return state
    new = {key: value for key, value in state.items() if key != "policies"}
    new["callbacks"] = _renamed(state["policies"], _CALLBACKS)
    if isinstance(new["callbacks"], dict) and ADAPTIVE_PRECISION in new["callbacks"]:
        kept = new["callbacks"][ADAPTIVE_PRECISION]
        new["callbacks"][ADAPTIVE_PRECISION] = _renamed(kept, _ADAPTIVE_PRECISION)
    if isinstance(new.get("config"), dict):
        new["config"] = {"callbacks": {}, **in_new_names(new["config"])}
    return new


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {names.get(key, key): item for key, item in value.items()}
