"""Ray: clusters, actors, and what its errors mean."""
