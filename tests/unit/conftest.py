"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A shared machine is slow at times: an example that takes over 200 ms is no failure.
settings.register_profile("virtbed", deadline=None)
settings.load_profile("virtbed")
