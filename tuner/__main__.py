"""``python -m tuner``."""

import sys

try:
    from tuner.cli import main

    code = main()
except KeyboardInterrupt:
    code = 130  # while the command line itself was still being imported
sys.exit(code)
