"""`python -m sr_train COMMAND ...`."""

import sys

from sr_train.cli.entry import main

sys.exit(main())
