"""The parts of train_lm.py: the model, its data, the processes, and what a run leaves behind."""
