"""Time PSNR and SSIM on one image; print the median of several runs in milliseconds.

Example: python -m scripts.bench_metrics --megapixels 1
"""

import argparse
import math
import statistics
import time

import cv2
import numpy as np

from sr_train.metrics import PSNR, SSIM, Metric


def pair(megapixels: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image and its original, 13:12, (H, W, 3)."""
    width = round(math.sqrt(megapixels * 1e6 * 13 / 12))
    height = round(megapixels * 1e6 / width)
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    coarse = rng.random((height // 16, width // 16, 3), np.float32)
    gt = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * top
    pred = gt + rng.normal(0, top / 50, gt.shape)
    return np.clip(pred, 0, top).astype(dtype), np.clip(gt, 0, top).astype(dtype)


def median_ms(metric: Metric, pred: np.ndarray, gt: np.ndarray, repeats: int) -> float:
    """Return the median time of one call, the first not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        metric(pred, gt, 4)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def main() -> None:
    """Print one line per metric."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megapixels", type=float, default=1.0)
    parser.add_argument("--dtype", choices=["uint8", "uint16"], default="uint8")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=0, help="of OpenCV; 0 leaves its default")
    options = parser.parse_args()
    if options.threads:
        cv2.setNumThreads(options.threads)
    pred, gt = pair(options.megapixels, options.dtype)
    print(f"{pred.shape[1]}x{pred.shape[0]} {options.dtype}, {cv2.getNumThreads()} threads")
    metrics: list[Metric] = [PSNR("rgb"), PSNR("y"), SSIM("rgb"), SSIM("y")]
    for metric, name in zip(metrics, ["PSNR rgb", "PSNR y", "SSIM rgb", "SSIM y"], strict=True):
        milliseconds = median_ms(metric, pred, gt, options.repeats)
        print(f"{name:9} {milliseconds:8.2f} ms   value {metric(pred, gt, 4):.6f}")


if __name__ == "__main__":
    main()
