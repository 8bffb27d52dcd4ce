"""`python -m instafeed` is `instafeed`."""

from instafeed.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
