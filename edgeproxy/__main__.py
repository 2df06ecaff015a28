"""`python -m edgeproxy`: the same as the `edgeproxy` command."""

import sys

from edgeproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
