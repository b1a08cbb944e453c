"""Takes standard input as the controlling terminal, then becomes the given command. Standard library only.

Run as a script (`python -IS terminal_entry.py COMMAND...`) by a session leader without a terminal, in a pod.
"""

import fcntl
import os
import sys
import termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - the user's own terminal
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
