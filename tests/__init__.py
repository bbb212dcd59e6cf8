"""The tests, as a package: else one of that name in `site-packages` would be found before it."""
