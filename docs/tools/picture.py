"""Write docs/pictures/report.png: the first screen of a report, as Debian's Chromium draws it.

``.venv/bin/python docs/tools/picture.py results/quick/report.html``, of a sweep on a quiet host.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parents[1] / "pictures/report.png"
COLOURS = 32  # text on white takes few, and the file a third
BEFORE = "nav"  # the first screen ends where the table of contents begins


def picture(report: Path) -> bytes:
    """Return the PNG of a report's first screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        box = page.locator(BEFORE).first.bounding_box()
        height = box["y"] if box else 800
        drawn = page.screenshot(
            clip={"x": 0, "y": 0, "width": 1000, "height": height}, full_page=True
        )
        browser.close()
    made = io.BytesIO()
    image = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(COLOURS)
    image.save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    PICTURE.write_bytes(picture(Path(sys.argv[1])))
