"""Time from the command to the end of the first step, beside a bare script that does the same step.

    python -m scripts.bench_startup

The bare script imports torch, cv2 and torchvision, reads and crops the same images with cv2,
and makes one step of the same network with fused Adam. Both are fresh processes, in turn.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

BARE = """
import glob, random
import cv2, numpy as np, torch, torchvision
from archs.compact import SRVGGNetCompact
names = sorted(glob.glob({folder!r} + "/*.png"))
crops = []
for name in (names * 8)[:8]:
    image = cv2.cvtColor(cv2.imread(name), cv2.COLOR_BGR2RGB)
    crops.append(image[:128, :128].transpose(2, 0, 1))
gt = torch.from_numpy(np.stack(crops)).float() / 255
lq = torch.nn.functional.interpolate(gt, scale_factor=0.25, mode="area")
net = SRVGGNetCompact(scale=4)
optimizer = torch.optim.Adam(net.parameters(), lr=2e-4, fused=True)
with torch.autocast("cpu", dtype=torch.bfloat16, enabled={half}):
    pred = net(lq)
torch.nn.functional.l1_loss(pred.float(), gt).backward()
optimizer.step()
print("step 1/1", flush=True)
"""


def seconds_to_first_step(command: Sequence[str]) -> float:
    """Start a process; return the seconds until it reports its first step."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            output.append(line.decode())
            if line.startswith(b"step 1/"):
                elapsed = time.perf_counter() - start
                process.stdout.read()
                return elapsed
    raise SystemExit("".join(output))


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    args = parser.parse_args()
    from data.index.folders import resolve_root

    images = resolve_root("pkg://skimage/data")
    scratch = tempfile.mkdtemp()
    for name in ("astronaut", "coffee", "motorcycle_left", "chelsea", "ihc"):
        shutil.copy(images / f"{name}.png", scratch)
    bare = [sys.executable, "-c", BARE.format(folder=scratch, half=args.precision == "bf16")]
    overrides = ["arch=compact", "scale=4", "data.batch_size=8", "data.lq_size=32"]
    overrides += [f"data.train.gt={scratch}", "~data.val.main", f"precision={args.precision}"]
    overrides += ["train.steps=1", "train.log_every=1", f"out_dir={scratch}"]
    times = []
    for number in range(args.repeats + 1):
        ours = [sys.executable, "-m", "sr_train", "train", *overrides, f"name=run{number}"]
        times.append((seconds_to_first_step(bare), seconds_to_first_step(ours)))
    shutil.rmtree(scratch)
    bare_s, ours_s = (statistics.median(v) for v in zip(*times[1:], strict=True))
    ratio = statistics.median(b / a for a, b in times[1:])
    print(f"bare {bare_s:.2f} s  ours {ours_s:.2f} s  median paired ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
