"""A CUDA device that is simulated: the CUDA branches run whole on a machine without a GPU.

What it shows: wrong names and arguments on CUDA branches, tensors of two devices in one call,
hidden waits for the device, host reads of a result that has not arrived, and what happens when
memory runs out or the driver fails. What it cannot show: kernels, speed, real memory, real
concurrency.
"""
