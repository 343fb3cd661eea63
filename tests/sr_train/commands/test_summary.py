import io

from rich.console import Console

from sr_train.commands.summary import summary_table

FACTS = {
    "precision": "bf16",
    "precision_changes": ["step 20: the loss scale of net_g fell to 0.5: precision fp16 -> bf16"],
    "steps_per_sec": 2.5,
    "samples_per_sec": 40.0,
    "data_wait_fraction": 0.031,
    "seconds": {"training": 3725.0, "validation": 75.4, "saving": 1.25},
    "peak_device_gib": 3.25,
    "peak_host_gib": 1.5,
    "skipped_steps": {"g": 17, "d": 0},
    "steps": {"g": 2000, "d": 500},
    "micro_batches": 4,
    "micro_batches_configured": 1,
}


def told(**changes):
    """Return the table as lines of cells, wide enough that nothing is folded."""
    facts = {**FACTS, **changes}
    file = io.StringIO()
    Console(file=file, width=200).print(summary_table(facts, "toy"))
    lines = [line.split("\u2502") for line in file.getvalue().splitlines()]
    return [tuple(cell.strip() for cell in cells[1:3]) for cells in lines if len(cells) == 4]


def test_a_row_for_each_fact():
    assert told() == [
        ("precision", "bf16"),
        ("", "step 20: the loss scale of net_g fell to 0.5: precision fp16 -> bf16"),
        ("speed", "2.50 step/s, 40.0 samples/s, 3 % of the time waiting for data"),
        ("time", "training 1 h 2 min, validation 1 min 15 s, saving 1.2 s"),
        ("peak memory", "3.25 GiB on the device, 1.50 GiB of host memory"),
        ("skipped steps", "net_g 17 of 2000, net_d 0 of 500"),
        (
            "memory ran out",
            "each step was taken in 4 micro-batches instead of 1, with the same gradient; "
            "to start like this: train.accum=4",
        ),
    ]


def test_what_did_not_happen_has_no_row():
    rows = dict(told(micro_batches=1, precision_changes=[]))
    assert "memory ran out" not in rows
    assert rows["precision"] == "bf16"


def test_a_launch_of_a_single_step_has_no_speed():
    facts = {k: v for k, v in FACTS.items() if not k.endswith("_sec") and k != "data_wait_fraction"}
    table = summary_table(facts, "toy")
    assert table.row_count == 5
