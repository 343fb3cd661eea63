"""Find the tests whose outcome depends on how a processor rounds.

Each setting runs the tests in a fresh process under another instruction set, matrix library or
number of threads, as other machines have them. The last two are processors that nobody has: every
result of a convolution or matrix product is off by up to four roundings, by others for each shape,
the same at each call. Told are the tests that do not end alike under all settings, and those with
a thin margin: the largest |difference| / bound that any comparison by torch.testing.assert_close,
numpy.testing.assert_allclose or pytest.approx met.

Example: python -m scripts.rounding --thin 0.3 tests/losses tests/archs
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "oneDNN SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "oneDNN AVX512-BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "no oneDNN": {"ROUNDING_ONEDNN": "0"},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "MKL AVX2": {"MKL_CBWR": "AVX2"},
    "torch without vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "torch AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "two threads": {"ROUNDING_THREADS": "2"},
    "old processor": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "default",
    },
    "usual processor": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ROUNDING_THREADS": "2",
    },
    "rounding at random 1": {"ROUNDING_NOISE": "1"},
    "rounding at random 2": {"ROUNDING_NOISE": "2"},
}
"""Environment by name. ROUNDING_ is ours: what torch is told by calls."""

TESTS = ["archs", "losses", "sr_train/engine", "sr_train/metrics", "sr_train/ops"]

_DTYPES = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1.3e-6, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float16: (1e-3, 1e-5),
}
"""(rtol, atol) of assert_close where a test names none."""


_PRODUCTS = {
    F.conv2d, F.conv3d, F.conv_transpose2d, F.linear, torch.matmul, torch.bmm, torch.einsum,
    torch.conv2d, torch.conv3d, torch.Tensor.matmul, torch.Tensor.__matmul__,
}  # fmt: skip


class RandomRounding(TorchFunctionMode):
    """Let products of tensors be off by some roundings, which depend on shapes alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function; change its result a little where it is a product."""
        result = func(*args, **(kwargs or {}))
        if func not in _PRODUCTS or not result.is_floating_point() or result.is_meta:
            return result
        shapes = [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]
        seed = zlib.crc32(repr((self._seed, shapes)).encode())
        draw = torch.Generator().manual_seed(seed)
        noise = torch.rand(result.shape, generator=draw, dtype=torch.float64) * 2 - 1
        roundings = (4 if result.dtype in (torch.float32, torch.float64) else 1) / 2
        factor = 1 + noise * roundings * torch.finfo(result.dtype).eps
        return result * factor.to(result.dtype)


class Margins:
    """A plug-in of pytest that notes, by test, the outcome and the thinnest margin."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._row: dict[str, Any] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        torch.set_num_threads(int(os.environ.get("ROUNDING_THREADS", "1")))
        self._row = self.rows[item.nodeid] = {"passed": False, "margin": 0.0, "where": ""}
        noise = os.environ.get("ROUNDING_NOISE")
        counts_operations = hasattr(getattr(item, "module", None), "profile")  # ours too
        with RandomRounding(int(noise)) if noise and not counts_operations else nullcontext():
            yield
        self._row["passed"] = True

    def note(self, margin: float) -> None:
        """Keep a margin of the running test, and the line that asked for it."""
        if margin > self._row.get("margin", 0.0):
            self._row.update(margin=margin, where=_line_of_test())


def _line_of_test() -> str:
    frame = sys._getframe()
    while frame.f_back is not None and "/tests/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _ratio(a: torch.Tensor, b: torch.Tensor, rtol: float, atol: float) -> float:
    if a.shape != b.shape or not a.numel():
        return 0.0
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.detach().to("cpu", wide), b.detach().to("cpu", wide)
    differing = a != b
    bound = atol + rtol * b[differing].abs()
    ratios = (a - b)[differing].abs() / bound
    return float(ratios.nan_to_num(0.0).max()) if ratios.numel() else 0.0


def _margin(found: Any, expected: Any, rtol: float | None, atol: float | None) -> float:
    if isinstance(expected, dict):
        pairs = [(found[key], expected[key]) for key in expected if key in found]
    elif isinstance(expected, list | tuple):
        pairs = list(zip(found, expected, strict=False))
    else:
        a, b = torch.as_tensor(found), torch.as_tensor(expected)
        usual = max((_DTYPES.get(x.dtype, (0.0, 0.0)) for x in (a, b)), key=lambda row: row[0])
        return _ratio(a, b, usual[0] if rtol is None else rtol, usual[1] if atol is None else atol)
    return max((_margin(a, b, rtol, atol) for a, b in pairs), default=0.0)


def watch(margins: Margins) -> None:
    """Let the three comparisons note the margin of each call that passes."""

    def noted(compare: Callable[..., None], defaults: tuple[float | None, float | None]) -> Any:
        def wrapped(actual: Any, expected: Any, *args: Any, **kwargs: Any) -> None:
            rtol, atol = kwargs.get("rtol", defaults[0]), kwargs.get("atol", defaults[1])
            margins.note(_margin(actual, expected, rtol, atol))
            compare(actual, expected, *args, **kwargs)

        return wrapped

    torch.testing.assert_close = noted(torch.testing.assert_close, (None, None))
    np.testing.assert_allclose = noted(np.testing.assert_allclose, (1e-7, 0.0))
    scalar: Any = type(pytest.approx(1.0))
    compare = scalar.__eq__

    def equal(self: Any, actual: Any) -> bool:
        same = bool(compare(self, actual))
        if same and isinstance(actual, float | int | torch.Tensor | np.number) and self.tolerance:
            margins.note(float(abs(actual - self.expected) / self.tolerance))
        return same

    scalar.__eq__ = equal


def run_inside(words: list[str], store: Path) -> int:
    """Run pytest in this process and store what each test did."""
    if os.environ.get("ROUNDING_ONEDNN") == "0":
        torch.backends.mkldnn.set_flags(False)
    margins = Margins()
    watch(margins)
    code = pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", *words], [margins])
    store.write_text(json.dumps(margins.rows))
    return int(code)


def run_under(name: str, words: list[str]) -> dict[str, dict[str, Any]]:
    """Run the tests in a fresh process under a setting; return its row of each test."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "rows.json"
        program = [sys.executable, "-m", "scripts.rounding", "--store", str(store), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "2", **SETTINGS[name]}
        done = subprocess.run(program, env=environment, capture_output=True, text=True)
        lines = done.stdout.strip().splitlines()
        print(f"{name}: {lines[-1] if lines else done.stderr}", flush=True)
        rows: dict[str, dict[str, Any]] = json.loads(store.read_text())
        return rows


def tell(found: dict[str, dict[str, dict[str, Any]]], thin: float) -> int:
    """Print the tests that end differently and those with thin margins; return how many differ."""
    tests = sorted({test for rows in found.values() for test in rows})
    worst = {}
    differing = 0
    for test in tests:
        rows = {name: rows[test] for name, rows in found.items() if test in rows}
        failed = [name for name, row in rows.items() if not row["passed"]]
        if failed:
            differing += 1
            print(f"FAILS under {', '.join(failed)}: {test}")
        worst[test] = max((row["margin"], row["where"], name) for name, row in rows.items())
    for test in sorted(tests, key=lambda each: -worst[each][0]):
        margin, where, name = worst[test]
        if margin >= thin:
            print(f"{margin:.3f} of the bound ({where}, {name}): {test}")
    return differing


def main() -> int:
    """Run every setting asked for; exit code 1 where a test fails under one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--thin", type=float, default=0.25, help="margins to tell, of the bound")
    parser.add_argument("--json", type=Path, help="also store every row here")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("tests", nargs="*", default=[f"tests/{name}" for name in TESTS])
    options = parser.parse_args()
    if options.store:
        return run_inside(options.tests, options.store)
    found = {name: run_under(name, options.tests) for name in options.settings}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return int(tell(found, options.thin) > 0)


if __name__ == "__main__":
    sys.exit(main())
