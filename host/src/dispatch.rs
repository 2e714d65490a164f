//! Who answers a job: mode guard → candidates → provider.

pub mod provider;
