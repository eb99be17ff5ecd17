"""CUDA kernels of the non-local operator, in Triton; for tests TRITON_INTERPRET=1 runs them on the CPU."""
