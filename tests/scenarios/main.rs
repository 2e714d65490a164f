//! Scenarios over real processes: one module per story, one binary so that linking is paid once.

mod bad_input;
mod caches;
mod common;
mod first_start;
mod fuzz;
mod golden;
mod guide;
mod isolation;
mod load;
mod pull;
mod sdk;
