"""The device's side of the MLPerf Tiny benchmark."""
