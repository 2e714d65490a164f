//! The words of the WIT as Rust types, generated from it, with its documentation.

#![allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated from the WIT")]
#![allow(
    clippy::all,
    clippy::restriction,
    clippy::allow_attributes_without_reason,
    reason = "generated from the WIT"
)]

/// The bindings as they are generated, for the macros that export a policy.
///
/// One world of all kinds is generated here, so that a job is one type for every kind of policy. What a component
/// exports is decided by the macro that its author calls: only then functions with the names of a kind exist.
macro_rules! bindings {
    ($($more:tt)*) => {
        #[doc(hidden)]
        pub mod bindings {
            wit_bindgen::generate!({
                path: "../../wit/policy",
                inline: "
                    package potluck:sdk;
                    world every-kind {
                        export potluck:policy/about@0.1.0;
                        export potluck:policy/routing@0.1.0;
                        export potluck:policy/pricing@0.1.0;
                        export potluck:policy/slashing@0.1.0;
                    }
                ",
                world: "potluck:sdk/every-kind",
                generate_all,
                pub_export_macro: true,
                $($more)*
            });
        }
    };
}

#[cfg(target_family = "wasm")]
bindings!(additional_derives: [PartialEq, Eq],);

#[cfg(not(target_family = "wasm"))]
bindings!(additional_derives: [PartialEq, Eq, serde::Serialize, serde::Deserialize],);

pub use bindings::{
    exports::potluck::policy::{
        about::Description,
        pricing::{Hardware, Market, Price},
        routing::{Choice, Ranking},
        slashing::{Audit, Evidence, Judgement, Method, Outcome, Verdict},
    },
    potluck::policy::types::{Candidate, Circle, Health, Job, MicroCredits, MilliTokensPerSecond, Path},
};
