"""Readers of the Linux kernel's files; each fact is read in one place.

Most functions take the root of a file system ("/" on a live host, a recorded tree in a test) or its
``proc``. A fact that a kernel does not report (gVisor's, or one without NUMA) is None, not an
error.
"""
