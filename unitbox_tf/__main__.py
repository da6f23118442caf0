"""`python -m unitbox_tf`: the same as the console script `unitbox`."""

import sys

from unitbox_tf.cli import main

if __name__ == "__main__":
    sys.exit(main())
