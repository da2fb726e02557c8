//! Nothing: the model checks are tests.
