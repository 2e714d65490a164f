//! What this machine offers strangers: its models, at what price.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potluck_primitives::{Bounded, Class, MicroCredits};
use tokio::time::Instant;

use super::Room;
use crate::{
    blob::{Kind, source::Found},
    inference::{ModelDetails, ModelEntry},
    policy::{
        Kind as PolicyKind, MAX_NAME, Policies,
        types::{self, Circle},
    },
    pool::public::{
        meter::Rates,
        offer::{MAX_LIFE, MAX_MODELS, MAX_RATE, ModelOffer},
        receipts::now_ms,
        session::serve::Goods,
    },
};

/// Context of a model that is not loaded yet, in tokens: what memory allows is known once it is.
const UNLOADED: u64 = 8_192;
/// How long a model's file may be hashed before the offer goes without it this time.
const HASHING: Duration = Duration::from_secs(2);

/// The prices that were offered and still hold.
#[derive(Debug, Default)]
pub(super) struct Prices {
    rows: Mutex<HashMap<String, Vec<(Instant, Rates)>>>,
}

impl Prices {
    fn rows(&self) -> MutexGuard<'_, HashMap<String, Vec<(Instant, Rates)>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds to what is offered from now on.
    pub(super) fn offered(&self, models: &[ModelOffer]) {
        let mut rows = self.rows();
        let now = Instant::now();
        for all in rows.values_mut() {
            all.retain(|(until, _)| *until > now);
        }
        rows.retain(|_, all| !all.is_empty());
        for model in models {
            let all = rows.entry(model.name().to_owned()).or_default();
            all.retain(|(_, rates)| *rates != model.rates);
            all.push((now + MAX_LIFE, model.rates));
        }
    }
}

impl Goods for Prices {
    fn rates(&self, model: &str, limit: Rates) -> Option<Rates> {
        let now = Instant::now();
        let rows = self.rows();
        let held = rows.get(model)?.iter().filter(|(until, _)| *until > now).map(|(_, rates)| *rates);
        let fitting: Vec<Rates> = held.filter(|rates| rates.within(limit)).collect();
        // Who asks names the rates of the offer that it read.
        let exact = fitting.iter().find(|rates| **rates == limit);
        exact.or_else(|| fitting.iter().min_by_key(|rates| (rates.completion, rates.prompt))).copied()
    }
}

/// The models that are offered now.
pub(super) async fn models(room: &Room, policies: Option<&Policies>) -> Vec<ModelOffer> {
    let section = &room.section;
    let mut found = Vec::new();
    for model in room.inference.models().await {
        let named = section.models.is_empty() || section.models.contains(&model.name);
        let small = section.max_model_bytes.is_none_or(|most| model.size <= most);
        if named && small && !model.is_embedder() {
            found.extend(offer(room, policies, &model).await);
        }
        if found.len() >= MAX_MODELS as usize {
            break;
        }
    }
    found
}

async fn offer(room: &Room, policies: Option<&Policies>, model: &ModelEntry) -> Option<ModelOffer> {
    let details = room.inference.show(&model.name).await.ok()?;
    let loaded = room.inference.loaded();
    let context = match loaded.iter().find(|other| other.entry.name == model.name) {
        Some(loaded) => loaded.context,
        None => details.context.min(UNLOADED),
    };
    Some(ModelOffer {
        name: Bounded::new(model.name.as_bytes().to_vec()).ok()?,
        digest: digest(room, &model.name).await?,
        quantisation: Class::new(&details.quantization),
        context: u32::try_from(context).ok().filter(|context| *context > 0)?,
        rates: rates(room, policies, model, &details),
    })
}

/// What a thousand tokens of a model cost: as configured, else as the approved policy says, else by the list.
fn rates(room: &Room, policies: Option<&Policies>, model: &ModelEntry, details: &ModelDetails) -> Rates {
    let quoted = policies.and_then(|policies| quote(policies, model, details));
    let list = quoted.unwrap_or_else(|| list(model.size));
    let most = |price: MicroCredits| price.min(MAX_RATE);
    Rates {
        prompt: most(room.section.prompt_price.unwrap_or(list.prompt)),
        completion: most(room.section.answer_price.unwrap_or(list.completion)),
    }
}

/// What the approved pricing policy says; `None`: there is none, or it does not say.
fn quote(policies: &Policies, model: &ModelEntry, details: &ModelDetails) -> Option<Rates> {
    policies.active(PolicyKind::Pricing)?;
    let name = model.name.get(..model.name.floor_char_boundary(MAX_NAME)).unwrap_or_default();
    let job = types::Job { model: name.to_owned(), circle: Circle::Public, ..types::Job::default() };
    let bits = model.size.saturating_mul(8_000).checked_div(details.parameters).unwrap_or(0);
    let hardware = types::Hardware {
        parameters: details.parameters.div_ceil(1_000_000),
        bits: u32::try_from(bits).unwrap_or(0),
        ..types::Hardware::default()
    };
    let market = types::Market { ceiling: u64::MAX, ..types::Market::default() };
    match policies.quote(&job, &hardware, &market, now_ms()) {
        Ok((price, _)) => Some(Rates {
            prompt: MicroCredits(price.per_thousand_prompt.into()),
            completion: MicroCredits(price.per_thousand_answer.into()),
        }),
        Err(why) => {
            tracing::warn!(model = model.name, %why, "the pricing policy gives no price; the list is used");
            None
        }
    }
}

/// The list: what a thousand tokens take on the reference machine (50 GB/s), which reads the weights once for each
/// token of an answer and, for prompts, two fifths as long. A credit is an hour of it, and nothing is free.
fn list(bytes: u64) -> Rates {
    // bytes · 1,000 / 50·10⁹ s, at 10⁶ / 3,600 µcr a second.
    let answer = u128::from(bytes).saturating_mul(1_000_000).div_ceil(180_000_000_000).max(1);
    Rates { prompt: MicroCredits((answer * 2).div_ceil(5)), completion: MicroCredits(answer) }
}

/// BLAKE3 of a model's file; while it is computed the model waits for the next offer.
async fn digest(room: &Room, name: &str) -> Option<[u8; 32]> {
    let mut finding = room.inference.blobs().find(Kind::Model, name).await?;
    let known = finding.wait_for(|found| matches!(found, Found::Known(item) if item.id.is_some()));
    let found = tokio::time::timeout(HASHING, known).await.ok()?.ok()?;
    match &*found {
        Found::Known(item) => item.id.map(|id| id.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(rate: u128) -> ModelOffer {
        ModelOffer {
            name: Bounded::new(b"m".to_vec()).unwrap(),
            digest: [0; 32],
            quantisation: Class::new(""),
            context: 1,
            rates: rates(rate),
        }
    }

    fn rates(rate: u128) -> Rates {
        Rates { prompt: MicroCredits(1), completion: MicroCredits(rate) }
    }

    #[test]
    fn the_list_is_what_the_reference_machine_takes() {
        // 4.5 GB: 90 s for a thousand tokens, 0.025 credits.
        assert_eq!(list(4_500_000_000).completion, MicroCredits(25_000));
        assert_eq!(list(4_500_000_000).prompt, MicroCredits(10_000));
        assert_eq!(list(0).completion, MicroCredits(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_price_holds_for_as_long_as_its_offer() {
        let prices = Prices::default();
        assert_eq!(prices.rates("m", rates(10)), None);
        prices.offered(&[model(10)]);
        tokio::time::advance(Duration::from_secs(300)).await;
        prices.offered(&[model(20)]);
        assert_eq!(prices.rates("m", rates(10)), Some(rates(10)), "who read the old offer pays that");
        assert_eq!(prices.rates("m", rates(20)), Some(rates(20)));
        assert_eq!(prices.rates("m", rates(9)), None);
        assert_eq!(prices.rates("other", rates(20)), None);
        tokio::time::advance(Duration::from_secs(400)).await;
        assert_eq!(prices.rates("m", rates(10)), None, "it is over");
        assert_eq!(prices.rates("m", rates(25)), Some(rates(20)));
    }
}
