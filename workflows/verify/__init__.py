"""Comparison of FP16 and INT8 with FP32: on held-out clips, and layer by layer."""

from .accuracy import clip_evaluator as clip_evaluator
from .accuracy import judge_accuracy as judge_accuracy
from .accuracy import judge_on_data as judge_on_data
from .accuracy import other_precisions as other_precisions
from .accuracy import pair_evaluator as pair_evaluator
from .folds import judge_on_folds as judge_on_folds
from .layers import explain_layers as explain_layers
from .record import AccuracyReport as AccuracyReport
from .record import accuracy_rows as accuracy_rows
from .record import record_accuracy as record_accuracy
