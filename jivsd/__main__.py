"""`python -m jivsd` is `jivsd`."""

from jivsd.cli import main

raise SystemExit(main())
