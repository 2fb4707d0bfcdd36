"""What every layer shares: the job description, the run directory, the replica environment, errors."""
