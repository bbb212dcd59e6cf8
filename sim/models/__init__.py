"""Models made by programs: a builder of TFLite files, and random networks."""
