"""`python -m ztunnel`: serve one node until SIGTERM."""

import sys

from ztunnel.app import main

sys.exit(main())
