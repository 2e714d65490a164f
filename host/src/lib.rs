//! The Potluck node.
