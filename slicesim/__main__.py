"""``python -m slicesim``."""

from slicesim.cli import main

main()
