"""What the parts are joined with: ports, buffers, delays, clock enables, memories."""
