"""Path of the browser that browser.yml installs, and its options."""

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
# For root, and without the browser's own connections, so that each request is the page's.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
