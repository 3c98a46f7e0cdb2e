"""What this machine has for training, what it lacks, and what each lack costs."""
