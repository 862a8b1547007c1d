"""DataFrames, Series and Arrow tables as Parquet or Arrow IPC files."""
