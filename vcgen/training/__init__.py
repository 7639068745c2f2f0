"""What surrounds LightningCLI: configurations, refusals, signals, SLURM, the run's folder."""
