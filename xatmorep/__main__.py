"""Run the command line as ``python -m xatmorep``."""

from xatmorep.cli import main

raise SystemExit(main())
