mod random;

use frame_support::{
    assert_ok,
    dispatch::GetDispatchInfo as _,
    traits::{
        Bounded, EnsureOrigin as _, Hooks as _, QueryPreimage, StorePreimage, fungible::Inspect as _,
        schedule::DispatchTime,
    },
};
use pallet_conviction_voting::{AccountVote, Conviction, Vote};
use pallet_referenda::TracksInfo as _;
use potluck_primitives::{PolicyHash, PolicyKind, PoolClass, SigningKey, blake2_256};
use sp_runtime::BuildStorage as _;

use crate::{parameters::Settings, *};

/// The development chain in block 1.
fn development() -> sp_io::TestExternalities {
    let mut config = serde_json::to_value(RuntimeGenesisConfig::default()).unwrap();
    let patch = genesis::preset(&"development".into()).unwrap();
    merge(&mut config, serde_json::from_slice(&patch).unwrap());
    let config: RuntimeGenesisConfig = serde_json::from_value(config).unwrap();
    let mut chain = sp_io::TestExternalities::new(config.build_storage().unwrap());
    chain.execute_with(|| System::set_block_number(1));
    chain
}

fn merge(into: &mut serde_json::Value, patch: serde_json::Value) {
    match (into, patch) {
        (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

/// A development account by its name.
fn account(name: &str) -> AccountId {
    let found = genesis::ACCOUNTS.iter().find(|it| it.0 == name).unwrap();
    AccountId::new(found.1)
}

fn go_to(block: BlockNumber) {
    for next in System::block_number() + 1..=block {
        System::set_block_number(next);
        Scheduler::on_initialize(next);
        Providers::on_initialize(next);
    }
}

#[test]
fn the_keys_of_development_accounts_follow_from_their_names() {
    for (name, public, _, _) in genesis::ACCOUNTS {
        let seed = blake2_256(&[genesis::SEED_DOMAIN, name.as_bytes()]);
        assert_eq!(SigningKey::from_bytes(&seed).verifying_key().to_bytes(), public, "{name}");
    }
}

#[test]
fn presets_give_what_they_say() {
    for name in genesis::names() {
        assert!(genesis::preset(&name).is_some(), "{name:?}");
    }
    assert!(genesis::preset(&"nothing".into()).is_none());
    development().execute_with(|| {
        for (name, _, tokens, credits) in genesis::ACCOUNTS {
            assert_eq!(Balances::balance(&account(name)), tokens, "{name}");
            assert_eq!(CreditBalances::balance(&account(name)), credits, "{name}");
        }
        assert_eq!(parameters::Current::<Runtime>::get(), Settings::development());
        assert_eq!(ParachainInfo::parachain_id(), genesis::PARA_ID.into());
    });
}

#[test]
fn tracks_are_in_order_and_follow_the_settings() {
    development().execute_with(|| {
        assert_eq!(Tracks::check_integrity(), Ok(()));
        assert_eq!(Tracks::info(1).unwrap().confirm_period, Settings::development().policies.confirm);
        parameters::Current::<Runtime>::put(Settings::real());
        assert_eq!(Tracks::info(1).unwrap().confirm_period, Settings::real().policies.confirm);
        assert_eq!(Tracks::info(2), None);
    });
}

#[test]
fn credits_cannot_be_transferred() {
    // The second balances have no calls at all, so no transaction can name one.
    let metadata = sp_io::TestExternalities::default().execute_with(Runtime::metadata_ir);
    let pallet = |name: &str| metadata.pallets.iter().find(|it| it.name == name).unwrap().clone();
    assert!(pallet("CreditBalances").calls.is_none());
    assert!(pallet("Balances").calls.is_some());
}

#[test]
fn a_vote_puts_a_policy_in_force_at_its_height() {
    development().execute_with(|| {
        let alice = account("alice");
        let hash = PolicyHash([5; 32]);
        let call = RuntimeCall::Policies(pallet_potluck_policies::Call::approve {
            kind: PolicyKind::Slashing,
            class: PoolClass::PUBLIC,
            hash,
            activates_at: 20,
            uri: Default::default(),
        });
        let proposal: Bounded<RuntimeCall, sp_runtime::traits::BlakeTwo256> = Preimage::bound(call).unwrap();
        assert!(Preimage::have(&proposal));
        let origin = Box::new(OriginCaller::Origins(origins::Origin::Policies));
        assert_ok!(Referenda::submit(
            RuntimeOrigin::signed(alice.clone()),
            origin,
            proposal,
            DispatchTime::After(1)
        ));
        assert_ok!(Referenda::place_decision_deposit(RuntimeOrigin::signed(alice.clone()), 0));
        let vote = AccountVote::Standard {
            vote: Vote { aye: true, conviction: Conviction::Locked1x },
            balance: 900_000 * TOKEN,
        };
        assert_ok!(ConvictionVoting::vote(RuntimeOrigin::signed(alice), 0, vote));
        go_to(12);
        let active = |at| Policies::active(PolicyKind::Slashing, PoolClass::PUBLIC, at);
        assert_eq!((active(19), active(20)), (None, Some(hash)));
    });
}

#[test]
fn the_track_of_policies_is_not_the_root() {
    development().execute_with(|| {
        let policies = || RuntimeOrigin::from(origins::Origin::Policies);
        assert!(governance::PolicyOrigin::try_origin(policies()).is_ok());
        assert!(frame_system::EnsureRoot::<AccountId>::try_origin(policies()).is_err());
        assert!(governance::PolicyOrigin::try_origin(RuntimeOrigin::signed(account("alice"))).is_err());
        let outcome = Parameters::set(policies(), Settings::real());
        assert_eq!(outcome, Err(sp_runtime::DispatchError::BadOrigin));
    });
}

#[test]
fn settings_under_which_nothing_could_pass_are_refused() {
    development().execute_with(|| {
        let mut settings = Settings::development();
        settings.root.confirm = settings.root.decision + 1;
        assert!(Parameters::set(RuntimeOrigin::root(), settings).is_err());
        assert_ok!(Parameters::set(RuntimeOrigin::root(), Settings::real()));
    });
}

#[test]
fn the_heaviest_calls_fit_into_a_block() {
    let verdict = potluck_primitives::Verdict {
        job: [0; 16],
        provider: [0; 32],
        evidence: [0; 32],
        policy: PolicyHash([0; 32]),
        parts: 1,
        at: potluck_primitives::Block(0),
    };
    let signatures = (0..32u8).map(|byte| ([byte; 32], [0; 64])).collect();
    let signed = potluck_primitives::SignedVerdict::new(verdict, signatures).unwrap();
    let voucher = potluck_primitives::Voucher {
        pool: [0; 32],
        payer: [1; 32],
        payee: [2; 32],
        lane: 0,
        nonce: 0,
        cumulative: potluck_primitives::MicroCredits(0),
        expires: potluck_primitives::Block(0),
        receipts_root: [0; 32],
    };
    let voucher = potluck_primitives::SignedVoucher { voucher, signature: [0; 64] };
    let leaf = potluck_primitives::Leaf { account: [0; 32], delta: 0, gross: 0, vouchers_root: [0; 32] };
    let siblings = potluck_primitives::Bounded::empty();
    let proof = potluck_primitives::SumProof { index: 0, leaf_count: 1, siblings };
    let most_vouchers = vec![voucher.clone(); 32].try_into().unwrap();
    let most_listed = vec![voucher; 64].try_into().unwrap();
    use pallet_potluck_credits::Call as Credit;
    let calls = [
        RuntimeCall::Providers(pallet_potluck_providers::Call::submit_verdict { signed }),
        RuntimeCall::Credits(Credit::close_batch { batch: 0 }),
        RuntimeCall::Credits(Credit::redeem { vouchers: most_vouchers }),
        RuntimeCall::Credits(Credit::answer_leaf { batch: 0, leaf, proof, vouchers: most_listed }),
    ];
    let most =
        configs::RuntimeBlockWeights::get().get(frame_support::dispatch::DispatchClass::Normal).max_extrinsic;
    for call in calls {
        let weight = call.get_dispatch_info().total_weight();
        assert!(weight.all_lte(most.unwrap()), "{call:?} weighs {weight:?}");
    }
}

/// What `chain/build` wrote, by its name.
fn dist(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}. Run chain/build", path.display()))
}

#[test]
fn the_committed_metadata_is_the_runtimes() {
    let metadata = sp_io::TestExternalities::default().execute_with(|| Runtime::metadata_at_version(16));
    assert!(*metadata.unwrap() == dist("metadata.scale"), "chain/dist is stale: run chain/build");
}

#[test]
fn the_committed_chain_specifications_hold_the_committed_runtime() {
    let code = dist("potluck_runtime.compact.wasm");
    for name in ["development", "local"] {
        let spec: serde_json::Value = serde_json::from_slice(&dist(&format!("{name}.json"))).unwrap();
        let of = |key: &[u8]| {
            let key = sp_core::bytes::to_hex(key, false);
            sp_core::bytes::from_hex(spec["genesis"]["raw"]["top"][key].as_str().unwrap()).unwrap()
        };
        assert!(of(b":code") == code, "{name}.json has another runtime");
        assert_eq!(spec["para_id"], genesis::PARA_ID);
    }
}

#[test]
fn chain_dist_was_built_from_these_sources() {
    let build = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../build");
    let outcome = std::process::Command::new(build).arg("--stale").output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}
