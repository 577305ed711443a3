"""From files to records, and from a run to its directory."""
