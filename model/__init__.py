"""The PyTorch model: architecture, synthetic faces, data sets, training, evaluation. The only room that needs torch."""
