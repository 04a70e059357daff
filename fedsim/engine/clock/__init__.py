"""Simulated time: who begins and ends when, and which server step each enters."""
