"""What a device is and what code costs on it. Compile time only."""
