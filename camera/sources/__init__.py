"""Sources of frames: files, folders, cameras."""
