//! The data plane: logs of groups, the announce board, one byte budget.
