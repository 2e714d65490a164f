//! Genesis presets: `development` for one desk, `local` for a few machines with windows as in earnest.
//!
//! The accounts of both are for tests: the secret key of each is the BLAKE2b-256 hash of `potluck development ` and
//! its name, as an ed25519 seed. Nobody should hold anything of worth in them.

use alloc::{vec, vec::Vec};

use frame_support::build_struct_json_patch;
use hex_literal::hex;
use serde_json::Value;
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_core::sr25519::Public;
use sp_genesis_builder::PresetId;

use crate::{
    AccountId, AuraConfig, Balance, BalancesConfig, CREDIT, CreditsConfig, ParachainInfoConfig,
    ParametersConfig, ProvidersConfig, RuntimeGenesisConfig, TOKEN, parameters::Settings,
};

/// What precedes a name in the seed of its key.
pub const SEED_DOMAIN: &[u8] = b"potluck development ";

/// Name, ed25519 public key, tokens, credits.
pub type Holder = (&'static str, [u8; 32], Balance, Balance);

/// The accounts of the presets.
pub const ACCOUNTS: [Holder; 8] = [
    (
        "alice",
        hex!("1a3262f7560783d475a5a507a78fecccd31cefcbcd11f0ed7812e624aedfb81b"),
        1_000_000 * TOKEN,
        10_000 * CREDIT,
    ),
    (
        "bob",
        hex!("12a16acdb6d11b07139f17cafdf1ea8ffc392184864776cb390869a6fde9f334"),
        100_000 * TOKEN,
        10_000 * CREDIT,
    ),
    // Carol and Dave have no tokens: all they do must work without.
    ("carol", hex!("35800c6e3c9b046259c243caa90d3e479e0f2e9f816bcffe488c7399016c9e6f"), 0, 1_000 * CREDIT),
    ("dave", hex!("e56fe8706a762040238325d1e25e804aea4f2e00be5fe27fef4344ca2f142070"), 0, 0),
    (
        "settler",
        hex!("f1abbfcf2c4c893205c1214b9f88c98a6f94df4a49f0717913da2ba85bbfd62b"),
        1_000 * TOKEN,
        10_000 * CREDIT,
    ),
    (
        "verifier1",
        hex!("0d9c733f58b0e4a1cedd316b731ca9e343c2e38b6f3a8bdfb76bc01d389838bc"),
        1_000 * TOKEN,
        1_000 * CREDIT,
    ),
    (
        "verifier2",
        hex!("c35d6c0fa99b49a5a73af4d3a1518a2f28eb44022dc08a21daf4544d2097e671"),
        1_000 * TOKEN,
        1_000 * CREDIT,
    ),
    (
        "verifier3",
        hex!("f3132024ad6da8716ba31ece015b78ba2d2e1affe3ebc4abd630d51c3d06c592"),
        1_000 * TOKEN,
        1_000 * CREDIT,
    ),
];

/// The id of the chain among those of a relay chain.
pub const PARA_ID: u32 = 2_000;

/// The preset for a few machines.
pub const LOCAL: &str = "local";

/// The sr25519 keys that block producers have under `--alice` and `--bob`.
const COLLATORS: [[u8; 32]; 2] = [
    hex!("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"),
    hex!("8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48"),
];

fn patch(
    collators: &[[u8; 32]],
    settings: Settings,
    credits: pallet_potluck_credits::Parameters,
    providers: pallet_potluck_providers::Parameters,
) -> Value {
    let holders = |of: fn(&Holder) -> Balance| -> Vec<(AccountId, Balance)> {
        ACCOUNTS.iter().map(|it| (AccountId::new(it.1), of(it))).filter(|(_, amount)| *amount > 0).collect()
    };
    let authorities: Vec<AuraId> = collators.iter().map(|key| Public::from_raw(*key).into()).collect();
    build_struct_json_patch!(RuntimeGenesisConfig {
        aura: AuraConfig { authorities },
        balances: BalancesConfig { balances: holders(|it| it.2) },
        credits: CreditsConfig { parameters: credits, grants: holders(|it| it.3) },
        parachain_info: ParachainInfoConfig { parachain_id: PARA_ID.into() },
        parameters: ParametersConfig { settings },
        providers: ProvidersConfig { parameters: providers },
    })
}

/// The preset of this name, as a JSON patch of the genesis configuration.
pub fn preset(id: &PresetId) -> Option<Vec<u8>> {
    let [alice, _] = COLLATORS;
    let patch = match id.as_str() {
        sp_genesis_builder::DEV_RUNTIME_PRESET => {
            let credits = pallet_potluck_credits::Parameters::development();
            let providers = pallet_potluck_providers::Parameters::development();
            patch(&[alice], Settings::development(), credits, providers)
        }
        LOCAL => {
            let credits = pallet_potluck_credits::Parameters::real();
            patch(&COLLATORS, Settings::real(), credits, pallet_potluck_providers::Parameters::real())
        }
        _ => return None,
    };
    serde_json::to_vec(&patch).ok()
}

/// The names of the presets.
pub fn names() -> Vec<PresetId> {
    vec![PresetId::from(sp_genesis_builder::DEV_RUNTIME_PRESET), PresetId::from(LOCAL)]
}
