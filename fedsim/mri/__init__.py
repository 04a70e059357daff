"""MR physics: arrays in, arrays out. Knows neither files nor federations."""
