"""What a schedule will take: the models of the engines and of the firmware."""
