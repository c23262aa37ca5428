//! Every metric of the operator, with its help text.
