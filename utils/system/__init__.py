"""The machine: devices, processes, the environment record and readings of the GPU."""
