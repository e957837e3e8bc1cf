"""Which clips stand for the camera: the choice that range scans, parity and calibration rest on."""
