//! Where the chain of the public pool is, and when vouchers are redeemed there.

use std::time::Duration;

use potluck_primitives::MicroCredits;
use serde::{Deserialize, Serialize};

use super::value;

/// The chain of the public pool. Nothing of it is used, and nothing connects, before something of the public pool is
/// asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainSection {
    /// A node of the chain: `ws://` on this machine, `wss://` elsewhere. `None`: no chain.
    pub endpoint: Option<String>,
    /// What may be computed for a payer without a voucher.
    #[serde(with = "credits")]
    pub exposure: MicroCredits,
    /// What makes a lane worth redeeming.
    #[serde(with = "credits")]
    pub redeem_amount: MicroCredits,
    /// After how long a smaller lane is redeemed, too.
    #[serde(with = "value::duration")]
    pub redeem_after: Duration,
    /// How many blocks before a voucher expires it is redeemed; one that lives shorter is not taken.
    pub redeem_margin: u32,
}

impl Default for ChainSection {
    fn default() -> Self {
        Self {
            endpoint: None,
            exposure: MicroCredits(10_000),
            redeem_amount: MicroCredits::CREDIT,
            redeem_after: Duration::from_secs(86_400),
            redeem_margin: 600,
        }
    }
}

impl ChainSection {
    /// Checks what types cannot say: the field at fault and what would be right.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        if !cfg!(feature = "public") {
            return Err((
                "chain.endpoint",
                "is set, but this potluck was built without the public pool".into(),
            ));
        }
        check_endpoint(endpoint).map_err(|reason| ("chain.endpoint", reason))
    }
}

/// Whether credits may be settled over that address: encrypted, or on this machine.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let right = "write e.g. ws://127.0.0.1:9944 or wss://chain.example";
    let url = reqwest::Url::parse(endpoint)
        .map_err(|error| format!("`{endpoint}` is no address ({error}); {right}"))?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let near = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme() {
        "wss" if !host.is_empty() => Ok(()),
        "ws" if near => Ok(()),
        "ws" => Err(format!(
            "`{endpoint}` is neither encrypted nor on this machine; use wss://, or a tunnel to this machine"
        )),
        _ => Err(format!("`{endpoint}` is no address of a chain's node; {right}")),
    }
}

/// Credits in TOML: `"1.25"`, or a whole number.
pub(super) mod credits {
    use potluck_primitives::MicroCredits;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Whole(u64),
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        amount: &MicroCredits,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<MicroCredits, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => {
                text.parse().map_err(|error| D::Error::custom(format!("`{text}`: {error}")))
            }
            Written::Whole(credits) => {
                let credits = MicroCredits::CREDIT.checked_mul(u128::from(credits));
                credits.ok_or_else(|| D::Error::custom("more credits than can be counted"))
            }
        }
    }

    /// A sum that may be left out.
    pub(in crate::config) mod optional {
        use potluck_primitives::MicroCredits;
        use serde::{Deserializer, Serializer};

        pub(in crate::config) fn serialize<S: Serializer>(
            amount: &Option<MicroCredits>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match amount {
                Some(amount) => serializer.collect_str(amount),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<MicroCredits>, D::Error> {
            super::deserialize(deserializer).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_goes_over_nothing_that_others_read() {
        for good in ["ws://127.0.0.1:9944", "ws://localhost:8000", "ws://[::1]:1", "wss://chain.example/rpc"]
        {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in ["ws://10.0.0.1:9944", "http://127.0.0.1:9944", "127.0.0.1:9944", "", "ws://chain.example"]
        {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credits_are_written_as_people_do() {
        let section: ChainSection = toml::from_str("exposure = '0.5'\nredeem_amount = 2").unwrap();
        assert_eq!(
            (section.exposure, section.redeem_amount),
            (MicroCredits(500_000), MicroCredits(2_000_000))
        );
        assert!(toml::from_str::<ChainSection>("exposure = '0.0000001'").is_err());
        assert!(toml::from_str::<ChainSection>("exposure = -1").is_err());
    }
}
