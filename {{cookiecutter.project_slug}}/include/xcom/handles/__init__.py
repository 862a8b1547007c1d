"""Handles: values that are stored and read without ever being whole in memory.

``File``, ``Table``, ``Items``, and ``pull`` are exported by ``include.xcom``. Nothing is imported here,
so that a task that uses none of them pays for none.
"""
