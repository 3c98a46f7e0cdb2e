"""A page to try runs in a browser, for this machine only."""
