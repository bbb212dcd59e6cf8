"""What results are compared with: the golden model of a file, and the reference interpreter."""
