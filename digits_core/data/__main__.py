"""python -m digits_core.data."""

from digits_core.data.command import main

raise SystemExit(main())
