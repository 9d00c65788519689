"""What each pipeline runs: which jobs there are, where their artifacts lie, and the configuration that each one gets."""
