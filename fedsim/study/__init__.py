"""What is made of runs: figures, reports, and reconstructions of single files."""
