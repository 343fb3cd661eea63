"""Values, targets, words and files that a config must not be broken by."""

from itertools import pairwise

VALUES = [
    "-1", "0", "1", "-0.0", "1e308", "-1e308", "1e400", "nan", "inf", "-inf", "null", "true",
    "false", "''", "' '", "[]", "{}", "[1,2]", "[null]", "{a:1}", "[[[[1]]]]", "abc", "x" * 5000,
    "${name}", "${scale}", "${nope}", "${nope.deeper}", "${arch}", "${.}", "${..}", "${...scale}",
    "${oc.env:HOME}", "${oc.env:NOPE_X}", "${oc.env:NOPE_X,7}", "'${oc.decode:\"[1,2]\"}'",
    "${oc.dict.keys:arch}", "${oc.deprecated:name}", "${hydra:runtime.cwd}", "${hydra:nope}",
    "${now:%Y}", "'${now:%}'", "${${name}}", "'${'", "'${a'", "'}'", "???", "1_000", "0x10", "1e9",
    "2147483648", "9223372036854775808", "-9223372036854775809", "99999999999999999999999999",
    "1.5", "3", "64", "\u00e9", "\u65e5\u672c\u8a9e", "'\U0001f600'", "'a\\nb'", "'a\\tb'",
    "\"a'b\"", "'a=b'", "../..", "/proc/1", "/dev/null", "/dev/zero", "/proc/self/mem",
    "/nonexistent/x", "~", "-", "--", "a/b", ".", "''''", "choice(1,2)", "range(1,3)", "glob(*)",
    "int('3')", "sort(3,1)", "!!python/object/apply:os.system", "*", "&a", "%", "@",
    "file:///etc/passwd", "pkg://os", "pkg://nope/x", "pkg://", "http://127.0.0.1:9/x",
]  # fmt: skip
TARGETS = [
    "os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "builtins.print",
    "builtins.open", "archs.compact", "archs.compact.Nope", "archs.nope.Nope", "archs.",
    "archs..compact", "archs", "", ".", "..", "sr_train.cli.entry.main",
    "sr_train.cli.entry.os.system", "sr_train.cli.entry.os._exit",
    "sr_train.cli.sweeping.signal.raise_signal", "sr_train.cli.sweeping.shutil.copyfile",
    "sr_train.cli.sweeping.time.sleep", "sr_train.__main__.x", "torch.nn.Module",
    "torch.nn.functional.relu", "torch.nn.functional.torch.load", "torch.hub.load", "torch.load",
    "torch.nn.Identity", "torch.nn.Conv2d", "torch.optim.Optimizer", "torch.jit.load",
    "torch.optim.lr_scheduler.StepLR", "torch.optim.LBFGS", "torch.optim.SparseAdam",
    "data.loading.stream.TrainLoader", "data.images.ImageDataset", "losses.pixel.L1Loss",
    "sr_train.engine.averages.Ema", "archs.compact.SRVGGNetCompact.forward",
    "archs.compact.SRVGGNetCompact", "archs.compact.torch.nn.Linear",
    "archs.compact.SRVGGNetCompact ", "Archs.Compact", "archs/compact",
    "archs.compact:SRVGGNetCompact", "torch.nn.x\\ny", "\u00e9.\u00e8",
    "sr_train.api.errors.SRTrainError", "torch.nn.Sequential", "sr_train.cli.entry.sys.exit",
    "functools.partial", "operator.attrgetter", "importlib.import_module", "numpy.load",
    "hydra.utils.instantiate", "lpips.LPIPS", "torchvision.models.vgg19",
]  # fmt: skip
NUMBERS = [
    "data.batch_size", "data.lq_size", "data.frames", "arch.num_feat", "arch.num_conv",
    "train.accum", "train.steps", "train.keep_last", "train.log_every", "data.stream.prefetch",
    "scale", "seed", "precision.growth_interval", "swa.every", "tiling.tile", "tiling.overlap",
    "tiling.tile_batch", "train.max_norm", "optimizer.lr", "ema.decay", "distributed.timeout_sec",
    "scheduler.steps", "data.train.cache_gib", "data.train.lq_size", "data.train.scale",
]  # fmt: skip
LARGE = [
    "1000000000", "1000000", "100000", "4097", "2147483647", "2147483648", "9223372036854775807",
    "9223372036854775808", "1e9", "1e-320", "0.5", "-5", "7",
]  # fmt: skip
WORDS = [
    "=", "==1", "+=1", "~", "~~x", "a", "a b=c", "experiment=quickstart", "+experiment=nope",
    "+experiment=quickstart", "arch=nope", "arch=", "arch=[compact,span]", "objective=[]",
    "objective=[l1,l1]", "objective=l1", "objective=5", "metrics=[]", "~metrics", "dataset=[]",
    "dataset=[clips]", "optimizer=nope", "hydra.run.dir=/proc/x",
    "hydra.output_subdir=a/../../b", "hydra.job.name=${x}", "hydra/launcher=nope",
    "hydra.mode=NOPE", "--config-dir=/nonexistent", "--config-name=infer", "--cfg=job", "--info",
    "--resolve", "-m", "name=a,b", "out_dir=/proc", "out_dir=/dev/null", "name=" + "n" * 300,
    "name='a\\nb'", "name=$(touch x)", "resume=/dev/zero", "resume=/etc/passwd", "resume=auto",
    "net_g.pretrained=/dev/null", "net_g.pretrained=/etc/passwd", "net_g.freeze=['*']",
    "net_g.freeze=['[']", "param_groups=[{match:'*'}]", "param_groups=[1]",
    "param_groups=[{match:'[',lr_factor:-1}]", "plugins=[os]", "plugins=['']", "plugins=[.]",
    "plugins=os", "plugins=[torch]", "plugins=[subprocess,builtins]", "device=cuda", "device=meta",
    "device=cpu:7", "device=xla", "device=''", "device=gpu", "train.max_norm=1e-40",
    "swa.enabled=true", "discriminator=unet_sn", "objective_d=[r1]", "+objective=feature_matching",
    "+objective=perceptual", "+objective=lpips", "precision=fp16", "precision=bf16",
    "distributed.strategy=fsdp", "net_g.compile=maybe", "lr=1e-4", "batch=4",
    "optimizer._partial_=x",
]  # fmt: skip

_DEEP = 5000
_SYSTEM = "{_target_: os.system, command: 'touch {canary}'}"
_LOAD = "f: {hub}/evil.pth, weights_only: false"


def _included(node: str) -> str:
    return "data: {train: {include: [" + node + "]}}\n"


def _as_loss(node: str) -> str:
    return "objective: {x: {weight: 1.0, loss: " + node + "}}\n"


def _as_set(node: str) -> str:
    return "data: {val: {main: " + node + "}}\n"


def _laughs(levels: str) -> str:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for before, name in pairwise(levels):
        lines.append(f"{name}: &{name} [{','.join(['*' + before] * 9)}]")
    return "\n".join(lines) + "\n"


FILES = {
    "tag apply": "x: !!python/object/apply:os.system ['touch {canary}']\n",
    "tag new": "x: !!python/object/new:os.system ['touch {canary}']\n",
    "tag name": "seed: !!python/name:os.system ''\n",
    "tag module": "seed: !!python/module:os\n",
    "tag tuple": "seed: !!python/tuple [1,2]\n",
    "tag int": "seed: !!int '12'\n",
    "tag binary": "name: !!binary aGVsbG8=\n",
    "tag set": "plugins: !!set {a, b}\n",
    "tag unknown": "seed: !foo 1\n",
    "timestamp": "name: 2001-12-14t21:59:43.10-05:00\n",
    "anchors": "a: &a {seed: 1}\nseed: 5\n<<: *a\n",
    "merge": "base: &b\n  steps: 5\ntrain:\n  <<: *b\n",
    "alias undefined": "seed: *nope\n",
    "alias of itself": "a: &a [*a]\n",
    "map of itself": "train: &t\n  steps: *t\n",
    "laughs": _laughs("abcdefghi"),
    "deep list": "a: " + "[" * _DEEP + "]" * _DEEP + "\n",
    "deep map": "".join(" " * i + f"k{i}:\n" for i in range(900)),
    "twice": "seed: 1\nseed: 2\n",
    "tab": "seed:\t1\n\ttrain: 2\n",
    "mark": "\ufeffseed: 1\n",
    "nul": "seed: 1\0\n",
    "empty": "",
    "header alone": "# @package _global_\n",
    "list": "- 1\n- 2\n",
    "scalar": "hello\n",
    "null": "null\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "int keys": "1: 2\n",
    "null key": "? \n: 1\n",
    "bool key": "true: 1\n",
    "float key": "1.5: 1\n",
    "list key": "? [a, b]\n: 1\n",
    "long key": "k" * 100_000 + ": 1\n",
    "empty key": "'': 1\n",
    "dotted key": "a.b: 1\n",
    "path key": "'../x': 1\n",
    "interpolated key": "'${seed}': 1\n",
    "defaults itself": "defaults: [case]\n",
    "defaults loop": "defaults: [/experiment/case]\n",
    "defaults missing": "defaults: [/arch: nope]\n",
    "defaults null": "defaults: null\n",
    "defaults text": "defaults: arch\n",
    "defaults map": "defaults: {a: b}\n",
    "defaults int": "defaults: [1]\n",
    "defaults path": "defaults: [../../../../etc/passwd]\n",
    "defaults override": "defaults: [override /arch: nope]\n",
    "defaults override nothing": "defaults: [override /nope: x]\n",
    "defaults interpolated": "defaults: [override /arch: ${name}]\n",
    "recursive": "name: ${name}\n",
    "recursive over two": "seed: ${train.log_every}\ntrain: {log_every: ${seed}}\n",
    "recursive node": "arch: ${arch}\n",
    "environment": "name: ${oc.env:PATH}\n",
    "resolver": "name: ${nope:1}\n",
    "resolver in resolver": "name: ${oc.env:${oc.env:NOPE,HOME}}\n",
    "missing": "seed: ???\n",
    "latin-1": "name: caf\u00e9\n",
    "control": 'name: "a\\x07b"\n',
    "surrogate": 'name: "\\ud800"\n',
    "escape": 'name: "\\e[31mred"\n',
    "nan": "seed: .nan\n",
    "inf": "seed: .inf\n",
    "octal": "seed: 0o17\n",
    "hexadecimal": "seed: 0x1F\n",
    "sexagesimal": "seed: 1:30\n",
    "large int": "seed: " + "9" * 5000 + "\n",
    "lines": "name: |\n  a\n  b\n",
    "target list": "arch: {_target_: [os.system]}\n",
    "target int": "arch: {_target_: 5}\n",
    "target null": "arch: {_target_: null}\n",
    "target inside": "arch: {_target_: archs.compact.SRVGGNetCompact, scale: "
    "{_target_: builtins.eval}}\n",
    "target in a list": _included(_SYSTEM),
    "target deep in lists": _included(f"[[{_SYSTEM}]]"),
    "target of the hub": _included(
        "{_target_: torch.hub.load, repo_or_dir: {hub}, model: x, source: local}"
    ),
    "target of a load": _included("{_target_: torch.load, " + _LOAD + "}"),
    "target by a walk": _as_loss(
        "{_target_: sr_train.cli.sweeping.shutil.copyfile, src: {hub}/hubconf.py, dst: {canary}}"
    ),
    "target by torch": _as_set(
        "{_target_: torch.nn.functional.torch.load, gt: x, lq: null, scale: 2, " + _LOAD + "}"
    ),
    "target by a plugin": "plugins: [torch]\n" + _as_loss("{_target_: torch.load, " + _LOAD + "}"),
    "plugin of the library": "plugins: [os]\n" + _as_loss(_SYSTEM),
    "hydra callback": "hydra: {callbacks: {x: " + _SYSTEM + "}}\n",
    "hydra launcher": "hydra: {launcher: " + _SYSTEM + "}\n",
    "logging class": "hydra: {job_logging: {handlers: {x: {(): os.system, command: 'touch "
    "{canary}'}}}}\n",
    "arguments": "arch: {_args_: [1,2]}\n",
    "partial": "arch: {_partial_: true}\n",
    "convert": "arch: {_convert_: nope}\n",
    "recursion off": "arch: {_recursive_: false}\n",
    "objective without loss": "objective: {x: {weight: 1}}\n",
    "objective null": "objective: {x: null}\n",
    "objective int": "objective: 5\n",
    "metrics null": "metrics: null\n",
    "validation list": "data: {val: [1,2]}\n",
    "validation null": "data: {val: null}\n",
    "training null": "data: {train: null}\n",
    "data null": "data: null\n",
    "loss no module": _as_loss(
        "{_target_: sr_train.api.errors.did_you_mean, wanted: a, known: [b]}"
    ),
    "metric no metric": "metrics: {psnr_y: {_target_: torch.nn.Identity}}\n",
    "scheduler none": "scheduler: {_target_: torch.nn.Identity}\n",
    "optimizer none": "optimizer: {_target_: torch.nn.Identity, _partial_: true}\n",
    "network identity": "arch: {_target_: torch.nn.Identity}\n",
    "logger none": "logger: {x: {_target_: torch.nn.Identity}}\n",
    "stream none": "data: {stream: {_target_: torch.nn.Identity}}\n",
}
"""Experiment files by what is odd about them.

{canary} stands for a file that code would make, {hub} for a folder with hubconf.py and evil.pth
that make it.
"""
