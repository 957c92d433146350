"""Where browser.yml puts the browser, and how it is started."""

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
# As root, and without connections of the browser's own: each request is then the page's.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
