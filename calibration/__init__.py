"""INT8: calibration clips, ranges, placement, the accuracy gate, fine-tuning."""
