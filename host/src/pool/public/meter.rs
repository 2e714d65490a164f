//! What a job costs, and how it is paid: chunk by chunk, a little ahead of what is served.
//!
//! The prompt is the first chunk, then every so many tokens of the answer. A requester keeps its payments at most one
//! chunk ahead of what it was served; a provider serves nothing that is not paid, and lets at most one chunk rest on
//! tokens whose freshness the issuer has not confirmed yet. So whatever fails, and whoever cheats, at most one chunk is
//! lost. The requester pays first because it has no name: one that was served first could leave and come again.

use std::time::Duration;

use parity_scale_codec::{Decode, Encode};
use potluck_primitives::{MicroCredits, Micros};

/// The smallest token: all payments are whole numbers of it.
pub const UNIT: MicroCredits = MicroCredits(100);
/// Tokens of an answer in a chunk, as near as whole units allow.
const CHUNK_TOKENS: u128 = 64;
/// Most tokens of an answer in a chunk, however cheap they are.
const MOST_TOKENS: u128 = 65_536;

/// What a thousand tokens cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Rates {
    /// Of the prompt.
    pub prompt: MicroCredits,
    /// Of the answer.
    pub completion: MicroCredits,
}

/// How a job at some rates is cut into chunks. Both sides compute it alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What a chunk costs: an even number of units; zero where nothing costs anything.
    pub price: MicroCredits,
    /// How many tokens of the answer it is.
    pub tokens: u32,
}

impl Rates {
    /// What so many tokens cost, rounded up once.
    pub fn owed(self, prompt_tokens: u32, completion_tokens: u32) -> MicroCredits {
        let part = |tokens: u32, rate: MicroCredits| u128::from(tokens).saturating_mul(rate.0);
        let sum = part(prompt_tokens, self.prompt).saturating_add(part(completion_tokens, self.completion));
        MicroCredits(sum.div_ceil(1_000))
    }

    /// How a job is cut.
    pub fn chunk(self) -> Chunk {
        let rate = self.completion.0;
        let pair = UNIT.0 * 2;
        if rate == 0 && self.prompt.0 == 0 {
            return Chunk {
                price: MicroCredits::ZERO,
                tokens: u32::try_from(MOST_TOKENS).unwrap_or(u32::MAX),
            };
        }
        let price =
            rate.saturating_mul(CHUNK_TOKENS).div_ceil(1_000).max(1).div_ceil(pair).saturating_mul(pair);
        let tokens =
            price.saturating_mul(1_000).checked_div(rate).unwrap_or(MOST_TOKENS).clamp(1, MOST_TOKENS);
        Chunk { price: MicroCredits(price), tokens: u32::try_from(tokens).unwrap_or(u32::MAX) }
    }

    /// Whether neither is dearer than in `limit`.
    pub fn within(self, limit: Self) -> bool {
        self.prompt <= limit.prompt && self.completion <= limit.completion
    }
}

/// Rounded up to whole units.
pub fn up(amount: MicroCredits) -> MicroCredits {
    MicroCredits(amount.0.div_ceil(UNIT.0).saturating_mul(UNIT.0))
}

/// Rounded down to whole units.
pub fn down(amount: MicroCredits) -> MicroCredits {
    MicroCredits(amount.0 - amount.0 % UNIT.0)
}

/// The requester's side of a job's account.
#[derive(Clone, Debug)]
pub struct Paying {
    rates: Rates,
    chunk: Chunk,
    prompt_tokens: u32,
    served: u32,
    paid: MicroCredits,
    /// More is never paid: what the whole job can cost, or what its owner will pay.
    most: MicroCredits,
}

impl Paying {
    /// An account of a job with a prompt of so many tokens, of at most `max_tokens` of answer, for which at most
    /// `limit` is paid.
    pub fn new(rates: Rates, prompt_tokens: u32, max_tokens: Option<u32>, limit: MicroCredits) -> Self {
        let mut paying = Self {
            rates,
            chunk: rates.chunk(),
            prompt_tokens,
            served: 0,
            paid: MicroCredits::ZERO,
            most: down(limit),
        };
        if let Some(most) = max_tokens {
            paying.most = paying.most.min(up(rates.owed(prompt_tokens, most)));
        }
        paying
    }

    /// The prompt has so many tokens after all.
    pub fn counted(&mut self, prompt_tokens: u32, max_tokens: Option<u32>, limit: MicroCredits) {
        let (served, paid) = (self.served, self.paid);
        *self = Self { served, paid, ..Self::new(self.rates, prompt_tokens, max_tokens, limit) };
    }

    /// So many more tokens of the answer arrived.
    pub fn served(&mut self, tokens: u32) {
        self.served = self.served.saturating_add(tokens);
    }

    /// So much was paid.
    pub fn paid(&mut self, amount: MicroCredits) {
        self.paid = MicroCredits(self.paid.0.saturating_add(amount.0));
    }

    /// What was paid so far.
    pub fn total(&self) -> MicroCredits {
        self.paid
    }

    /// What was served so far costs so much.
    pub fn owed(&self) -> MicroCredits {
        self.rates.owed(self.prompt_tokens, self.served)
    }

    /// What to pay now: zero while half a chunk is still ahead. Afterwards at most one chunk is.
    pub fn due(&self) -> MicroCredits {
        let owed = self.owed().0;
        let half = self.chunk.price.0 / 2;
        if self.paid.0 > owed.saturating_add(half) || self.paid >= self.most {
            return MicroCredits::ZERO;
        }
        let target = owed.saturating_add(self.chunk.price.0).min(self.most.0);
        down(MicroCredits(target.saturating_sub(self.paid.0)))
    }

    /// Whether a further token cannot be paid any more.
    pub fn spent(&self) -> bool {
        let next = self.rates.owed(self.prompt_tokens, self.served.saturating_add(1));
        next > self.most
    }

    /// Whether not even the prompt and one token can be paid.
    pub fn hopeless(&self) -> bool {
        self.rates.owed(self.prompt_tokens, 1) > self.most
    }
}

/// The provider's side of a job's account.
#[derive(Clone, Debug)]
pub struct Earning {
    rates: Rates,
    chunk: Chunk,
    prompt_tokens: u32,
    served: u32,
    /// Confirmed by the issuer.
    settled: MicroCredits,
    /// Valid by their signatures; whether they are fresh the issuer has not said yet.
    pending: MicroCredits,
}

impl Earning {
    /// An account of a job.
    pub fn new(rates: Rates, prompt_tokens: u32) -> Self {
        let zero = MicroCredits::ZERO;
        Self { rates, chunk: rates.chunk(), prompt_tokens, served: 0, settled: zero, pending: zero }
    }

    /// Tokens came that are valid by their signatures.
    pub fn pending(&mut self, amount: MicroCredits) {
        self.pending = MicroCredits(self.pending.0.saturating_add(amount.0));
    }

    /// The issuer answered about `asked`: `fresh` of it counts.
    pub fn settled(&mut self, asked: MicroCredits, fresh: MicroCredits) {
        self.pending = MicroCredits(self.pending.0.saturating_sub(asked.0));
        self.settled = MicroCredits(self.settled.0.saturating_add(fresh.0));
    }

    /// What the issuer confirmed.
    pub fn total(&self) -> MicroCredits {
        self.settled
    }

    /// So many more tokens of the answer are sent.
    pub fn serve(&mut self, tokens: u32) {
        self.served = self.served.saturating_add(tokens);
    }

    /// Tokens of the answer that were sent.
    pub fn sent(&self) -> u32 {
        self.served
    }

    /// Whether so many more tokens are paid; zero: whether the prompt is.
    pub fn covers(&self, tokens: u32) -> bool {
        let owed = self.rates.owed(self.prompt_tokens, self.served.saturating_add(tokens));
        let covered = self.settled.0.saturating_add(self.pending.0.min(self.chunk.price.0));
        owed.0 <= covered
    }
}

/// Computing time of the reference machine, as work is valued: one credit is an hour of it.
pub fn reference_time(amount: MicroCredits) -> Micros {
    // 3,600 s a credit of 1,000,000 µcr: 3,600 µs a micro-credit.
    Micros(u64::try_from(amount.0.saturating_mul(3_600)).unwrap_or(u64::MAX))
}

/// A time as receipts have it.
pub fn micros(time: Duration) -> Micros {
    Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: Rates = Rates { prompt: MicroCredits(2_000), completion: MicroCredits(14_000) };

    #[test]
    fn a_chunk_is_an_even_number_of_units_and_about_64_tokens() {
        assert_eq!(RATES.chunk(), Chunk { price: MicroCredits(1_000), tokens: 71 });
        let cheap = Rates { prompt: MicroCredits(0), completion: MicroCredits(1) };
        assert_eq!(cheap.chunk(), Chunk { price: MicroCredits(200), tokens: 65_536 });
        assert_eq!(Rates::default().chunk().price, MicroCredits::ZERO);
        assert_eq!(RATES.owed(10, 3), MicroCredits(62));
    }

    proptest! {
        /// Both sides follow their rules; the answers of the issuer come late, or never.
        #[test]
        fn nobody_ever_has_more_than_one_chunk_at_risk(
            prompt_rate in 0_u128..50_000, rate in 0_u128..50_000, prompt in 0_u32..4_000,
            answer in 1_u32..500, step in 1_u32..4, lag in 0_usize..6, honest in any::<bool>(),
        ) {
            let rates = Rates { prompt: MicroCredits(prompt_rate), completion: MicroCredits(rate) };
            let chunk = rates.chunk().price.0;
            let first = rates.owed(prompt, 0).0.max(chunk);
            let mut paying = Paying::new(rates, prompt, Some(answer), MicroCredits(u128::MAX));
            let mut earning = Earning::new(rates, prompt);
            let mut asked = std::collections::VecDeque::new();
            let mut sent = 0;
            while sent < answer {
                let due = paying.due();
                paying.paid(due);
                if due.0 > 0 { earning.pending(due); asked.push_back(due); }
                prop_assert!(paying.total().0 <= paying.owed().0 + chunk + UNIT.0, "ahead by more than a chunk");
                let step = step.min(answer - sent);
                if earning.covers(step) {
                    earning.serve(step);
                    paying.served(step);
                    sent += step;
                } else {
                    // Only the issuer's word is missing.
                    let Some(late) = asked.pop_front() else {
                        prop_assert!(false, "stuck at {sent}"); unreachable!()
                    };
                    if !honest {
                        earning.settled(late, MicroCredits::ZERO);
                        let lost = rates.owed(prompt, sent).0.saturating_sub(earning.total().0);
                        prop_assert!(lost <= first, "served {lost} for nothing");
                        return Ok(());
                    }
                    earning.settled(late, late);
                }
                while asked.len() > lag {
                    if let Some(late) = asked.pop_front() { earning.settled(late, late); }
                }
            }
            prop_assert!(paying.total().0 < rates.owed(prompt, answer).0 + UNIT.0, "paid more than it can cost");
        }
    }

    #[test]
    fn what_its_owner_will_pay_ends_an_answer() {
        let mut paying = Paying::new(RATES, 0, None, MicroCredits(1_550));
        paying.paid(paying.due());
        let mut tokens = 0;
        while !paying.spent() {
            paying.served(1);
            tokens += 1;
            paying.paid(paying.due());
        }
        assert_eq!((tokens, paying.total()), (107, MicroCredits(1_500)));
        assert!(Paying::new(RATES, 1_000, None, MicroCredits(2_000)).hopeless());
    }
}
