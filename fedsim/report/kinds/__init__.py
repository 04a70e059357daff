"""What each kind of study shows: its figures, its findings and the columns of its tables."""
