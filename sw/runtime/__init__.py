"""Running whole programs, above the devices that run their segments."""
