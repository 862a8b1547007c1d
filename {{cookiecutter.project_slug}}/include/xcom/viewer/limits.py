"""How much of a payload is looked at. Numbers are for one view unless they say otherwise."""

from __future__ import annotations

MIB = 2**20

VIEWS_AT_ONCE = 4
"""In one process of the API server. The next view waits, then is asked to come back."""
DOWNLOADS_AT_ONCE = 8
WAITING_AT_ONCE = 4
"""For a view or a download, each. The next request is asked to come back at once."""
WAIT_SECONDS = 5.0
VIEW_SECONDS = 20.0
"""From the start of the child process to its end. It is killed then."""
MEMORY_BYTES = 768 * MIB
"""What the child may allocate for decoding."""
LIBRARY_BYTES = 384 * MIB
"""Address space of libraries, imported before the limit is set or after."""
READ_BYTES = 64 * MIB
"""Read from the store."""
WHOLE_BYTES = 4 * MIB
"""Objects up to this size are read whole, and their CRC32C is checked."""
CHECKED_FILE_BYTES = 1024 * MIB
"""Files of a directory up to this size are read once for their CRC32C: 30 ms for 200 MiB in the page
cache. Of larger ones the size is compared."""
RANGE_SECONDS = 15.0
"""For one range of an object in a bucket, with retries."""
RESULT_BYTES = 8 * MIB
"""Of the description that the child sends."""

PAGE_ROWS = 100
PAGE_COLUMNS = 40
SCHEMA_COLUMNS = 2000
FIRST_PAINT_BYTES = 7 * MIB
"""Estimated cost of the columns on a page of a Parquet file. Fewer are shown if need be."""
SAMPLE_ROWS = 20_000
SAMPLE_PLACES = 4
WHOLE_CELLS = 10_000_000
"""Frames of up to this many cells are summarized in full."""
REQUESTED_BYTES = 48 * MIB
REQUESTED_CELLS = 40_000_000
"""Frames up to this size are summarized in full when the user asks for it."""

CELL_CHARACTERS = 200
TEXT_CHARACTERS = 2000
NAME_CHARACTERS = 120
TREE_NODES = 3000
TREE_CHARACTERS = 400_000
"""Of all text in a tree: at most six bytes each on the way to the page."""
TREE_ITEMS = 100
TREE_DEPTH = 40
JSON_BYTES = 32 * MIB
HEX_BYTES = 1024
IMAGE_BYTES = 16 * MIB
ARRAY_BYTES = 16 * MIB
"""Arrays up to this size are read whole. Of larger ones, pieces that are spread evenly."""
HEAT_CELLS = 160
"""Cells of a heat map along one side. Of larger slices, every n-th row and column is shown."""
INLINE_BYTES = 4 * MIB
RUN_ROWS = 5000
HISTORY_RUNS = (30, 90, 365)
"""Runs that a page of the history may show."""
HISTORY_ROWS = 20_000
"""Rows that a page of the history reads: of a mapped task, one for each map index of each run."""
LARGEST_BYTES = 5 * 2**40
"""The largest object of Google Cloud Storage. A row that claims more counts as one of that size."""
