"""What PyTorch is asked of a device, in the one way that is right on every version of it and on every machine."""
