"""Names that options take, repeated from the library.

So `--help` imports nothing heavy; a test compares them.
"""

LOGOFORMER_PRESETS = ("base", "wide", "tiny")
PRESETS = (*LOGOFORMER_PRESETS, "former-dfer", "former-dfer-tiny", "mae-dfer", "mae-dfer-tiny")
FAMILIES = ("logoformer", "former-dfer", "mae-dfer")
DATA_SETS = ("DFEW", "FERV39k", "MAFW", "CREMA-D", "RAVDESS")
ATTENTIONS = ("logo", "joint", "space", "divided", "mixing", "lgi")
RECIPES = ("paper-dfew", "paper-ferv39k", "synthetic-tiny")
KINDS = ("dfew", "ferv39k", "video", "scene")
SHORT_CLIPS = ("former", "pad", "repeat", "drop")
ORDERS = ("forward", "reversed", "shuffled")
SELECTIONS = ("last", "validation", "test-fold")
COLORS = ("rgb", "bgr")

PRECISIONS = ("fp32", "fp16", "int8")
MIXED = "mixed"
VERDICT = "verdict"
ALL_FOLDS = "all"
BATCHES = (2, 4, 8)
METHODS = ("max", "entropy", "percentile", "mse", "auto")
GRAPHS = ("clip", "frame", "temporal")
TARGETS = ("rtx", "tensorrt")
RTX_SMS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")

BACKENDS = (
    "auto", "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "onnxruntime-cuda", "openvino-gpu", "openvino-npu",
)  # fmt: skip
FACES = ("detect", "whole", "center")
SCHEMAS = ("own", "nv")
WARMUPS = ("wait", "repeat")
MODES = ("closed", "paced", "multi", "offline", "cold", "idle")
BASELINES = (
    "onnxruntime", "torch", "torch.compile", "openvino", "naive re-run", "per-frame", "onnxruntime-cuda",
    "polygraphy",
)  # fmt: skip
SHELLS = ("bash", "zsh", "tcsh")
