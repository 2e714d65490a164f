//! What a Potluck policy is written with.
//!
//! A policy is a WebAssembly component that imports nothing: it is asked one question with everything it may know,
//! and answers it from that alone. This crate gives its author the words of the question and of the answer, a trait
//! for each kind of policy, a macro that makes a component of an implementation, arithmetic in integers, and golden
//! tests.
//!
//! ```
//! use potluck_policy::prelude::*;
//!
//! /// Asks machines in the order of their round trip.
//! struct Nearest;
//!
//! impl Routing for Nearest {
//!     fn rank(_: &Job, candidates: &[Candidate], _now: u64, _seed: u64) -> Result<Ranking, String> {
//!         let mut order: Vec<Choice> = (0..)
//!             .zip(candidates)
//!             .map(|(candidate, it)| Choice { candidate, score: score_of(it.round_trip.unwrap_or(u64::MAX)) })
//!             .collect();
//!         order.sort_by_key(|choice| (core::cmp::Reverse(choice.score), choice.candidate));
//!         Ok(Ranking { order, note: "the nearest first".into() })
//!     }
//! }
//!
//! export_routing!(Nearest);
//! ```
//!
//! # What holds for every policy
//!
//! * The same arguments give the same answer, on every machine, for ever: no clock, no randomness, no state that
//!   outlives a call, no floating point.
//! * Everything is bounded: a component that runs too long, asks for too much memory or returns too much is stopped,
//!   and the host decides without it.
//! * A panic is the end of the call, not an answer. Refuse in words instead: `Err(String)`.
//!
//! On WebAssembly the crate is `no_std` and brings an allocator and a panic handler; on any other target it is an
//! ordinary library, so that policies are tested like every other code.

#![cfg_attr(target_family = "wasm", no_std)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, reason = "tests may fail"))]

extern crate alloc;

pub mod expected;
pub mod fixed;
#[cfg(not(target_family = "wasm"))]
pub mod golden;
pub mod hash;
#[cfg(target_family = "wasm")]
mod runtime;

#[cfg(not(target_family = "wasm"))]
pub mod sample;
pub mod tariff;
mod words;

#[doc(hidden)]
pub use words::bindings;
pub use words::{
    Audit, Candidate, Choice, Circle, Description, Evidence, Hardware, Health, Job, Judgement, Market,
    Method, MicroCredits, MilliTokensPerSecond, Outcome, Path, Price, Ranking, Verdict,
};

use alloc::string::String;

/// A policy that orders machines.
pub trait Routing {
    /// Orders the candidates for one job, the best first. One that is left out is not asked.
    ///
    /// `now` is in milliseconds since 1970, `seed` is random and new for each job.
    ///
    /// # Errors
    /// A refusal in words: the host's own order is used then.
    fn rank(job: &Job, candidates: &[Candidate], now: u64, seed: u64) -> Result<Ranking, String>;
}

/// A policy that sets prices.
pub trait Pricing {
    /// The price of one job on one machine. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// A refusal in words: the job is not taken.
    fn quote(job: &Job, hardware: &Hardware, market: &Market, now: u64) -> Result<Price, String>;
}

/// A policy that judges.
pub trait Slashing {
    /// Judges one case. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// A refusal in words: there is no verdict.
    fn judge(evidence: &Evidence, now: u64) -> Result<Verdict, String>;
}

/// A score that is the better the smaller `cost` is: its negative, as far as an `i64` goes.
pub const fn score_of(cost: u64) -> i64 {
    match 0_i64.checked_sub_unsigned(cost) {
        Some(score) => score,
        None => i64::MIN,
    }
}

/// Everything a policy usually needs: `use potluck_policy::prelude::*`.
pub mod prelude {
    #[doc(no_inline)]
    pub use crate::{
        Audit, Candidate, Choice, Circle, Evidence, Hardware, Health, Job, Judgement, Market, Method,
        MicroCredits, MilliTokensPerSecond, Outcome, Path, Price, Pricing, Ranking, Routing, Slashing,
        Verdict, expected::Expected, export_pricing, export_routing, export_slashing, fixed, hash, score_of,
        tariff,
    };
    pub use alloc::{
        borrow::ToOwned,
        format,
        string::{String, ToString},
        vec,
        vec::Vec,
    };
}

#[doc(hidden)]
pub use alloc::{string::String as __String, vec::Vec as __Vec};

/// Makes a component of a type that implements [`Routing`]. Its label is the package's in `Cargo.toml`.
#[macro_export]
macro_rules! export_routing {
    ($policy:ty) => {
        $crate::__export!(routing, __export_potluck_policy_routing_0_1_0_cabi, {
            fn rank(
                job: $crate::Job,
                candidates: $crate::__Vec<$crate::Candidate>,
                now: u64,
                seed: u64,
            ) -> Result<$crate::Ranking, $crate::__String> {
                <$policy as $crate::Routing>::rank(&job, &candidates, now, seed)
            }
        });
    };
}

/// Makes a component of a type that implements [`Pricing`]. Its label is the package's in `Cargo.toml`.
#[macro_export]
macro_rules! export_pricing {
    ($policy:ty) => {
        $crate::__export!(pricing, __export_potluck_policy_pricing_0_1_0_cabi, {
            fn quote(
                job: $crate::Job,
                hardware: $crate::Hardware,
                market: $crate::Market,
                now: u64,
            ) -> Result<$crate::Price, $crate::__String> {
                <$policy as $crate::Pricing>::quote(&job, &hardware, &market, now)
            }
        });
    };
}

/// Makes a component of a type that implements [`Slashing`]. Its label is the package's in `Cargo.toml`.
#[macro_export]
macro_rules! export_slashing {
    ($policy:ty) => {
        $crate::__export!(slashing, __export_potluck_policy_slashing_0_1_0_cabi, {
            fn judge(evidence: $crate::Evidence, now: u64) -> Result<$crate::Verdict, $crate::__String> {
                <$policy as $crate::Slashing>::judge(&evidence, now)
            }
        });
    };
}

/// What the three have in common: the label, and functions with the names of the interface.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($interface:ident, $cabi:ident, { $($function:tt)* }) => {
        const _: () = {
            struct Component;

            impl $crate::bindings::exports::potluck::policy::about::Guest for Component {
                fn describe() -> $crate::Description {
                    $crate::Description {
                        name: env!("CARGO_PKG_NAME").into(),
                        version: env!("CARGO_PKG_VERSION").into(),
                        summary: env!("CARGO_PKG_DESCRIPTION").into(),
                        licence: env!("CARGO_PKG_LICENSE").into(),
                    }
                }
            }

            impl $crate::bindings::exports::potluck::policy::$interface::Guest for Component {
                $($function)*
            }

            #[cfg(target_family = "wasm")]
            $crate::bindings::exports::potluck::policy::about::__export_potluck_policy_about_0_1_0_cabi!(
                Component with_types_in $crate::bindings::exports::potluck::policy::about
            );
            #[cfg(target_family = "wasm")]
            $crate::bindings::exports::potluck::policy::$interface::$cabi!(
                Component with_types_in $crate::bindings::exports::potluck::policy::$interface
            );
        };
    };
}
