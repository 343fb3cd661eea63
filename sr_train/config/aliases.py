"""What other programs of this field call a setting, and its key here."""

from collections.abc import Iterable

_STEPS = "counted in steps, one optimizer update each"
_LQ = "the side of a crop in LQ pixels, that of the GT crop divided by scale"

_ALIASES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr"), ("optimizer.lr", "")),
    **dict.fromkeys(("weight_decay", "wd"), ("optimizer.weight_decay", "")),
    **dict.fromkeys(("betas",), ("optimizer.betas", "")),
    **dict.fromkeys(("momentum",), ("optimizer.momentum", "")),
    **dict.fromkeys(
        ("batch", "batch_size", "batchsize", "batch_size_per_gpu", "b", "bs"),
        ("data.batch_size", ""),
    ),
    **dict.fromkeys(
        ("epochs", "epoch", "num_epochs", "total_epochs", "max_epochs"), ("train.steps", _STEPS)
    ),
    **dict.fromkeys(
        ("iters", "iter", "iterations", "total_iter", "max_iters", "max_iter", "niter", "steps"),
        ("train.steps", _STEPS),
    ),
    **dict.fromkeys(("patch_size", "crop_size", "patch", "lq_size"), ("data.lq_size", _LQ)),
    **dict.fromkeys(("gt_size", "gt_patch_size", "hr_size", "gt_crop"), ("data.lq_size", _LQ)),
    **dict.fromkeys(
        ("workers", "num_workers", "num_worker_per_gpu", "n_workers", "j"),
        ("data.stream.num_workers", ""),
    ),
    **dict.fromkeys(("gpu", "gpus", "gpu_id", "gpu_ids", "cuda", "num_gpu"), ("device", "")),
    **dict.fromkeys(("gt", "hr", "train_gt", "dataroot_gt", "gt_dir"), ("data.train.gt", "")),
    **dict.fromkeys(("lq", "train_lq", "dataroot_lq", "lq_dir"), ("data.train.lq", "")),
    **dict.fromkeys(("val_gt", "val_dir"), ("data.val.main.gt", "")),
    **dict.fromkeys(("root", "data_root", "dataroot", "data_dir"), ("data.root", "")),
    **dict.fromkeys(("dataset_type", "data_set"), ("dataset", "")),
    **dict.fromkeys(
        ("pretrained", "pretrain", "pretrain_network_g", "pretrained_path", "load_path"),
        ("net_g.pretrained", ""),
    ),
    **dict.fromkeys(("amp", "fp16", "bf16", "half", "mixed_precision"), ("precision", "")),
    **dict.fromkeys(("ema_decay",), ("ema.decay", "")),
    **dict.fromkeys(("loss", "losses", "criterion"), ("objective", "")),
    **dict.fromkeys(
        ("model", "net", "network", "network_g", "generator", "architecture"), ("arch", "")
    ),
    **dict.fromkeys(("network_d", "net_d", "gan"), ("discriminator", "")),
    **dict.fromkeys(("optim",), ("optimizer", "")),
    **dict.fromkeys(("sched", "lr_scheduler", "lr_policy"), ("scheduler", "")),
    **dict.fromkeys(("exp_name", "experiment_name", "run_name", "run"), ("name", "")),
    **dict.fromkeys(("exp", "opt", "config", "recipe"), ("experiment", "")),
    **dict.fromkeys(("grad_clip", "clip", "clip_grad", "max_norm"), ("train.max_norm", "")),
    **dict.fromkeys(("grad_accum", "accumulation", "accum"), ("train.accum", "")),
    **dict.fromkeys(("val_freq", "val_every", "eval_every"), ("train.val_every", "")),
    **dict.fromkeys(
        ("save_freq", "save_every", "save_checkpoint_freq"), ("train.checkpoint_every", "")
    ),
    **dict.fromkeys(("print_freq", "log_every"), ("train.log_every", "")),
    **dict.fromkeys(("log_dir", "output_dir", "save_dir", "outdir", "workdir"), ("out_dir", "")),
    **dict.fromkeys(("tile", "tile_size"), ("tiling.tile", "")),
    **dict.fromkeys(("tile_pad", "tile_overlap", "overlap"), ("tiling.overlap", "")),
    **dict.fromkeys(("model_path", "ckpt", "checkpoint_path", "weights_path"), ("checkpoint", "")),
    **dict.fromkeys(("inp", "inputs", "in", "i", "input_dir"), ("input", "")),
    **dict.fromkeys(("out", "o", "outputs"), ("output", "")),
    **dict.fromkeys(("outscale", "upscale", "s"), ("scale", "")),
    **dict.fromkeys(("manual_seed",), ("seed", "")),
    **dict.fromkeys(("auto_resume", "resume_from", "resume_state"), ("resume", "")),
    **dict.fromkeys(("compile",), ("net_g.compile", "")),
    **dict.fromkeys(("frames", "num_frames", "clip_len"), ("data.frames", "")),
    **dict.fromkeys(("spynet",), ("arch.spynet", "")),
}


def known_as(word: str, known: Iterable[str]) -> tuple[str, str] | None:
    """Return (key, note) of a setting by a name that is used elsewhere, or by its last part.

    Args:
        word: what was typed, without dashes before it.
        known: every key, and every group, that the command has.
    """
    name = word.lower().replace("-", "_").split(".")[-1]
    keys = list(known)
    top = [key.split(".")[0] for key in keys]
    alias = _ALIASES.get(name)
    if alias is not None and (alias[0] in keys or alias[0].split(".")[0] in top):
        return alias
    alike = [key for key in keys if key.split(".")[-1].split("/")[-1] == name and key != word]
    return (min(alike, key=len), "") if alike else None
