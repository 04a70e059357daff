"""Images of a site: importers (one file a format), the site's shard, splits by subject, and batches of slices."""
