//! The public pool: what this machine asks of strangers, and what strangers may ask of it.

use std::{net::SocketAddr, time::Duration};

use libp2p::Multiaddr;
use potluck_primitives::MicroCredits;
use serde::{Deserialize, Serialize};

use super::{chain::credits, value};
use crate::identity::NodeId;

/// The public pool. Off: nothing is served, and nothing connects before a request asks for mode `public`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PublicSection {
    /// Nodes of the public pool to begin with, as multiaddresses that end in `/p2p/…`. Those met before are remembered.
    pub bootstrap: Vec<String>,
    /// Addresses at which a relay, an issuer, or a node that others begin with is reached. Empty: none of these.
    pub listen: Vec<SocketAddr>,
    /// Further addresses to tell others, as multiaddresses.
    pub announce: Vec<String>,
    /// Whether circuits of others lead through this machine, for tokens.
    pub relay: bool,
    /// Whether this machine issues spend tokens against credits.
    pub issuer: bool,
    /// Whether this machine audits strangers: asks them as everybody does, pays for it, and replays their answers on its
    /// own copies of the models. With a stake and `potluck provider verify` it judges what other verifiers find, too.
    pub verify: bool,
    /// Mean time between two audits.
    #[serde(with = "value::duration")]
    pub verify_every: Duration,
    /// Whose tokens this machine buys and takes: the account of an issuer.
    pub issuer_account: Option<String>,
    /// Where that issuer is, as multiaddresses. Empty: it is looked for.
    pub issuer_addresses: Vec<String>,
    /// Relays at which this machine waits for jobs, as multiaddresses that end in `/p2p/…`; at most 4.
    pub relays: Vec<String>,
    /// Models that strangers may ask for. Empty: all of this machine's.
    pub models: Vec<String>,
    /// Largest model file that is loaded for strangers, in bytes. `None`: any.
    pub max_model_bytes: Option<u64>,
    /// Credits for a thousand tokens of a prompt. `None`: what the approved pricing policy says, or the list.
    #[serde(with = "credits::optional", skip_serializing_if = "Option::is_none")]
    pub prompt_price: Option<MicroCredits>,
    /// Credits for a thousand tokens of an answer. `None`: what the approved pricing policy says, or the list.
    #[serde(with = "credits::optional", skip_serializing_if = "Option::is_none")]
    pub answer_price: Option<MicroCredits>,
    /// Jobs of strangers that are answered at the same time.
    pub max_jobs: usize,
    /// Bytes of text a second for strangers. `None`: any.
    pub rate: Option<u64>,
    /// Parts of the day at which strangers are served, in local time, e.g. `22:00-07:30`. Empty: always.
    pub hours: Vec<String>,
    /// Whether strangers are served on battery.
    pub on_battery: bool,
    /// How long the owner must have left the machine alone; 0 if that does not matter.
    #[serde(with = "value::duration")]
    pub idle: Duration,
    /// Prompts with these words are refused.
    pub refuse: Vec<String>,
    /// Relays that are refused.
    pub refuse_relays: Vec<String>,
    /// Most that a request may cost that does not say, in credits.
    #[serde(with = "credits")]
    pub max_price: MicroCredits,
    /// Most that all requests together may cost in a day, in credits.
    #[serde(with = "credits")]
    pub day_budget: MicroCredits,
    /// Whether providers are asked that no chain knows. For trials only.
    pub unregistered: bool,
}

impl Default for PublicSection {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            listen: Vec::new(),
            announce: Vec::new(),
            relay: false,
            issuer: false,
            verify: false,
            verify_every: Duration::from_secs(600),
            issuer_account: None,
            issuer_addresses: Vec::new(),
            relays: Vec::new(),
            models: Vec::new(),
            max_model_bytes: None,
            prompt_price: None,
            answer_price: None,
            max_jobs: 2,
            rate: None,
            hours: Vec::new(),
            on_battery: false,
            idle: Duration::from_secs(30),
            refuse: Vec::new(),
            refuse_relays: Vec::new(),
            max_price: MicroCredits(100_000),
            day_budget: MicroCredits::CREDIT,
            unregistered: false,
        }
    }
}

/// A node and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "public"), allow(dead_code, reason = "only checked"))]
pub(crate) struct At {
    /// The node.
    pub(crate) node: NodeId,
    /// Its address, without the node.
    pub(crate) address: Multiaddr,
}

/// The node that a multiaddress ends in, and the rest.
pub(crate) fn at(text: &str) -> Result<At, String> {
    let wrong =
        |why: &str| format!("`{text}` {why}; write e.g. /ip4/192.0.2.1/udp/7687/quic-v1/p2p/12D3Koo…");
    let mut address: Multiaddr = text.parse().map_err(|_| wrong("is no multiaddress"))?;
    let Some(libp2p::multiaddr::Protocol::P2p(peer)) = address.pop() else {
        return Err(wrong("does not end in the node that is there"));
    };
    let node =
        crate::mesh::peer::node_id(&peer).ok_or_else(|| wrong("names a node whose key is not ed25519"))?;
    Ok(At { node, address })
}

impl PublicSection {
    /// Checks what types cannot say: the field at fault and what would be right.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, list) in [("public.bootstrap", &self.bootstrap), ("public.relays", &self.relays)] {
            list.iter().try_for_each(|text| at(text).map(drop)).map_err(|reason| (field, reason))?;
        }
        for (field, list) in
            [("public.announce", &self.announce), ("public.issuer_addresses", &self.issuer_addresses)]
        {
            if let Some(wrong) = list.iter().find(|text| text.parse::<Multiaddr>().is_err()) {
                let example = "/ip4/192.0.2.1/udp/7687/quic-v1";
                return Err((field, format!("`{wrong}` is no multiaddress; write e.g. {example}")));
            }
        }
        if self.relays.len() > 4 {
            return Err(("public.relays", "must be at most 4 addresses".into()));
        }
        let ids = self.issuer_account.iter().map(|id| ("public.issuer_account", id));
        for (field, id) in ids.chain(self.refuse_relays.iter().map(|id| ("public.refuse_relays", id))) {
            let whose = "the `account` that `potluck public status` shows on that machine";
            id.parse::<NodeId>().map_err(|error| (field, format!("{error}; write {whose}")))?;
        }
        #[cfg(feature = "public")]
        for hours in &self.hours {
            hours
                .parse::<crate::pool::public::guard::Hours>()
                .map_err(|error| ("public.hours", error.to_string()))?;
        }
        if !(1..=1024).contains(&self.max_jobs) {
            return Err(("public.max_jobs", "must be from 1 to 1024".into()));
        }
        let most = 1_000 * MicroCredits::CREDIT.0;
        for (field, price) in
            [("public.prompt_price", self.prompt_price), ("public.answer_price", self.answer_price)]
        {
            if price.is_some_and(|price| price.0 > most) {
                return Err((field, "must be at most 1000 credits for a thousand tokens".into()));
            }
        }
        if self.relay && self.issuer {
            let reason = "must not be on beside public.issuer: one machine that is both could tell who spends which tokens";
            return Err(("public.relay", reason.into()));
        }
        if self.verify && self.verify_every < Duration::from_millis(100) {
            return Err(("public.verify_every", "must be at least 100 milliseconds".into()));
        }
        if (self.relay || self.issuer) && self.listen.is_empty() {
            return Err((
                "public.listen",
                "must name an address where a relay or issuer is reached, e.g. [\"0.0.0.0:7687\"]".into(),
            ));
        }
        Ok(())
    }

    /// The budgets by key.
    #[cfg(feature = "public")]
    pub(crate) fn budgets(&self, keys: &[super::ApiKey]) -> crate::pool::public::budget::Budget {
        let own = keys.iter().filter_map(|key| Some((key.name.clone(), key.budget?)));
        crate::pool::public::budget::Budget { job: self.max_price, day: self.day_budget, keys: own.collect() }
    }
}
