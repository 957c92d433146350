"""Readers of what the Linux kernel says: each fact is read in one place.

Every function takes the root of a file system ("/" on a live host, a recorded tree in a test) or
its ``proc``. What a kernel keeps to itself (gVisor's, one without NUMA) is None, and no error.
"""
