"""`python -m sr_train COMMAND ...`."""

from sr_train.cli.entry import program

program()
