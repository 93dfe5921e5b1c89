"""Training with Lightning: task, data, callbacks and runs; needs the ``train`` extra."""
