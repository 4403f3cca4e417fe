"""What drives an objective: optimisers, schedules, the step, metrics, progress."""
