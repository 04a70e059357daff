"""What every room needs, knowing nothing of fedsim itself."""
