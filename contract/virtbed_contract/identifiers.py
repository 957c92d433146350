"""Identifiers of the documents that virtbed writes: the name and the version of each.

The version is increased if a reader of the previous version would misread or refuse the document.
"""

from __future__ import annotations

RESULT = "virtbed.result/5"
EVIDENCE = "virtbed.evidence/2"
FAILURE = "virtbed.failure/2"
DESIGN = "virtbed.design/5"
HOST_REPORT = "virtbed.doctor/2"
HOST_REPORTS = "virtbed.doctors/1"
SAMPLES = "virtbed.samples/1"
REPORT = "virtbed.report/3"
HOSTS = "virtbed.hosts/1"
COMPARISON = "virtbed.comparison/3"
ADVICE = "virtbed.advice/2"
CALIBRATION = "virtbed.calibration/2"
PUBLISHED = "virtbed.published/2"
