"""How a server steps: who is asked in a round, and what becomes of what they send."""
