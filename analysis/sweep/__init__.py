"""Sweeps: grids of cells, run on any executor, kept row by row in one file, resumable after anything.

experiment   what a cell computes: a function of its settings and of a block's number, and a version
lookup       the experiments there are
grid         cells from axes, checked and ordered
store        rows by settings and version, in one SQLite file
adaptive     how many blocks of replicates a cell needs
executors    where cells run: here, in threads, in processes, on a Dask cluster
work         what a worker does with a batch of blocks
engine       hands out blocks, takes results, writes them
export       CSV, pandas, xarray, netCDF
cli          `python -m analysis sweep`
"""
