import pytest
import torch

from sr_train.api.errors import ConfigError
from sr_train.config.settings import LossScaleConfig
from sr_train.engine import precision as module
from sr_train.engine.precision import LossScaler, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")],
)
def test_auto_looks_at_the_processor(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    resolved = resolve_precision("auto", CPU)
    assert resolved.name == expected
    assert "CPU" in resolved.reason


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_looks_at_the_gpu(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: native)
    resolved = resolve_precision("auto", torch.device("cuda"))
    assert (resolved.name, resolved.scales_loss) == (expected, expected == "fp16")


def test_bf16_on_a_gpu_without_it_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: False)
    with pytest.raises(ConfigError, match="fp16 or fp32"):
        resolve_precision("bf16", torch.device("cuda"))


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'fp16'"):
        resolve_precision("fp61", CPU)


def test_autocast_follows_the_dtype():
    for name, dtype in module.DTYPES.items():
        with resolve_precision(name, CPU).autocast():
            assert torch.is_autocast_enabled("cpu") == (name != "fp32")
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_constant_scale_never_moves():
    scaler = LossScaler(CPU, dynamic=False)
    gradient = torch.ones(2)
    assert float(scaler.seed(torch.tensor(3.0), 0.25)) == 0.25
    scaler.unscale_([gradient])
    scaler.update(torch.tensor(1.0))
    assert torch.equal(gradient, torch.ones(2))
    assert (float(scaler.scale), scaler.state_dict()["dynamic"]) == (1.0, False)


def test_unscale_keeps_inf_and_nan():
    scaler = LossScaler(CPU, dynamic=True, settings=LossScaleConfig(init_scale=4.0))
    gradient = torch.tensor([4.0, float("inf"), float("nan")])
    scaler.unscale_([gradient])
    assert gradient[0] == 1.0
    assert torch.isinf(gradient[1])
    assert torch.isnan(gradient[2])


def test_scale_settings_are_used():
    settings = LossScaleConfig(
        init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=2
    )
    scaler = LossScaler(CPU, dynamic=True, settings=settings)
    seen = []
    for found_inf in (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0):
        scaler.update(torch.tensor(found_inf))
        seen.append(float(scaler.scale))
    assert seen == [8.0, 32.0, 8.0, 8.0, 2.0, 2.0, 8.0]
    assert (float(scaler.num_growths), float(scaler.num_backoffs)) == (2, 2)
