"""The PyTorch model: architecture, synthetic faces, data sets, training and evaluation.

The lowest folder that needs torch: what runs on a device imports nothing from here.
"""
