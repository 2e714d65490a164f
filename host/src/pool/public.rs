//! The public pool: strangers who serve, are paid, are checked, and never learn who asked.
