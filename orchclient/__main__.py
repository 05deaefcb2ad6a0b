"""``python -m orchclient`` is the command line."""

from orchclient.cli import main

main()
