"""How much of a payload is looked at. Numbers are per view unless they say otherwise."""

from __future__ import annotations

__all__: list[str] = []

MIB = 2**20

VIEWS_AT_ONCE = 4
"""Of one process of the API server; the next one waits, then is asked to come back."""
DOWNLOADS_AT_ONCE = 8
WAITING_AT_ONCE = 4
"""For a view or a download, each; who comes then is asked to come back at once."""
WAIT_SECONDS = 5.0
VIEW_SECONDS = 20.0
"""From the start of the process that decodes to its end; it is killed then."""
MEMORY_BYTES = 768 * MIB
"""What decoding may allocate, in the process of its own."""
LIBRARY_BYTES = 384 * MIB
"""Of address space that libraries take, whether they are imported before the limit is set or after."""
READ_BYTES = 64 * MIB
"""Read from the store."""
WHOLE_BYTES = 4 * MIB
"""Objects up to here are read whole, and their CRC32C is checked."""
CHECKED_FILE_BYTES = 1024 * MIB
"""Files of a directory up to here are read once for their CRC32C: 30 ms for 200 MiB that the system
has in memory. Larger ones are compared by their size."""
RANGE_SECONDS = 15.0
"""For one range of an object in a bucket, tries included."""
RESULT_BYTES = 8 * MIB
"""Of the description that is sent to the page."""

PAGE_ROWS = 100
PAGE_COLUMNS = 40
FIRST_PAINT_BYTES = 7 * MIB
"""What the shown columns of a Parquet file may be estimated to cost; fewer are shown if need be."""
SAMPLE_ROWS = 20_000
SAMPLE_PLACES = 4
WHOLE_CELLS = 10_000_000
"""Frames of up to so many cells are summarised in full."""
ASKED_BYTES = 48 * MIB
ASKED_CELLS = 40_000_000
"""Frames up to here are summarised in full when a person asks for it."""

CELL_CHARACTERS = 200
TEXT_CHARACTERS = 2000
NAME_CHARACTERS = 120
TREE_NODES = 3000
TREE_CHARACTERS = 400_000
"""Of all texts in a tree: six bytes each at most where they are sent to the page."""
TREE_ITEMS = 100
TREE_DEPTH = 40
JSON_BYTES = 32 * MIB
HEX_BYTES = 1024
IMAGE_BYTES = 16 * MIB
ARRAY_BYTES = 16 * MIB
"""Arrays up to here are read whole; of larger ones, pieces that are spread evenly."""
HEAT_CELLS = 160
"""Cells of a heat map along one side; larger slices are thinned out."""
INLINE_BYTES = 4 * MIB
RUN_ROWS = 5000
LARGEST_BYTES = 5 * 2**40
"""The largest object of Google Cloud Storage; a row that claims more is taken for one of that size."""
