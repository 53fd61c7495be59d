"""What the machine has: GPUs, memory, control groups, the torch build."""
