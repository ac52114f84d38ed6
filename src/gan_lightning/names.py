"""Names that several doors offer, and that are needed before anything heavy is imported."""

FEATURES = ("digits", "lite2", "inception")  # features=..., evaluate --features ...
DATA_SETS = ("mnist", "fashion_mnist", "cifar10", "egg")  # evaluate --data ..., beside folders
