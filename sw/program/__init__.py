"""Program files: what is in them, and the static check before they run."""
