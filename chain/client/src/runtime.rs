//! What the chain's runtime offers, made from the metadata that is committed with it.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "generated"
)]

#[subxt::subxt(
    runtime_metadata_path = "../dist/metadata.scale",
    derive_for_all_types = "Clone, PartialEq",
    substitute_type(
        path = "potluck_primitives::voucher::SignedVoucher",
        with = "::subxt::utils::Static<::potluck_primitives::SignedVoucher>"
    ),
    substitute_type(
        path = "potluck_primitives::registration::SignedRegistration",
        with = "::subxt::utils::Static<::potluck_primitives::SignedRegistration>"
    ),
    substitute_type(
        path = "potluck_primitives::verdict::SignedVerdict",
        with = "::subxt::utils::Static<::potluck_primitives::SignedVerdict>"
    ),
    substitute_type(
        path = "potluck_primitives::sum::Leaf",
        with = "::subxt::utils::Static<::potluck_primitives::Leaf>"
    ),
    substitute_type(
        path = "potluck_primitives::sum::SumNode",
        with = "::subxt::utils::Static<::potluck_primitives::SumNode>"
    ),
    substitute_type(
        path = "potluck_primitives::sum::SumProof",
        with = "::subxt::utils::Static<::potluck_primitives::SumProof>"
    ),
    substitute_type(
        path = "potluck_primitives::sum::challenge::BadSum",
        with = "::subxt::utils::Static<::potluck_primitives::BadSum>"
    ),
    substitute_type(
        path = "potluck_primitives::sum::challenge::Duplicate",
        with = "::subxt::utils::Static<::potluck_primitives::Duplicate>"
    ),
    substitute_type(
        path = "pallet_potluck_credits::types::Evidence",
        with = "::subxt::utils::Static<crate::call::Evidence>"
    ),
    substitute_type(
        path = "pallet_potluck_credits::types::Knowledge",
        with = "::subxt::utils::Static<crate::call::Knowledge>"
    ),
    substitute_type(
        path = "potluck_primitives::units::PolicyKind",
        with = "::subxt::utils::Static<::potluck_primitives::PolicyKind>"
    ),
    substitute_type(
        path = "potluck_primitives::units::PoolClass",
        with = "::subxt::utils::Static<::potluck_primitives::PoolClass>"
    ),
    substitute_type(
        path = "potluck_primitives::units::PolicyHash",
        with = "::subxt::utils::Static<::potluck_primitives::PolicyHash>"
    )
)]
mod generated {}

pub use generated::*;
