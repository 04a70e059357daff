"""What runs and studies show: figures, tables and pages."""
