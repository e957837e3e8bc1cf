"""Names that options take, repeated from the library.

So `--help` imports nothing heavy; a test compares them.
"""

PRESETS = ("base", "wide", "tiny")
ATTENTIONS = ("logo", "joint", "space", "divided", "mixing", "lgi")
RECIPES = ("paper-dfew", "paper-ferv39k", "synthetic-tiny")
KINDS = ("dfew", "ferv39k", "video")
SHORT_CLIPS = ("former", "pad", "repeat", "drop")
ORDERS = ("forward", "reversed", "shuffled")
SELECTIONS = ("last", "validation", "test-fold")
COLORS = ("rgb", "bgr")

PRECISIONS = ("fp32", "fp16", "int8")
MIXED = "mixed"
VERDICT = "verdict"
FRAME_BATCHES = (2, 4, 8)
METHODS = ("max", "entropy", "percentile", "mse")
GRAPHS = ("clip", "frame", "temporal")
TARGETS = ("rtx", "tensorrt")
RTX_SMS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")

BACKENDS = ("auto", "tensorrt", "tensorrt_rtx", "onnxruntime", "onnxruntime-cuda")
FACES = ("whole", "center")
WARMUPS = ("wait", "repeat")
MODES = ("closed", "paced", "multi", "offline", "cold", "idle")
BASELINES = (
    "onnxruntime", "torch", "torch.compile", "openvino", "naive re-run", "per-frame", "onnxruntime-cuda",
    "polygraphy",
)  # fmt: skip
SHELLS = ("bash", "zsh", "tcsh")
