//! The issuer's tokens as what jobs and circuits are paid with.

use std::sync::Arc;

use parity_scale_codec::{DecodeAll, Encode};
use potluck_primitives::MicroCredits;

use super::{PaymentError, Purse, Till};
use crate::{
    mesh::streams::BoxFuture,
    pool::public::{
        purse::{self, PurseError},
        relay::{Budget, TOKEN_CELLS, Tolls},
        till::{self, TillError},
        token::{Denomination, Token},
    },
};

/// A purse of tokens.
#[derive(Clone, Debug)]
pub struct Coins(pub purse::Purse);

impl Purse for Coins {
    fn take(&self, amount: MicroCredits) -> BoxFuture<'_, Result<Vec<Vec<u8>>, PaymentError>> {
        Box::pin(async move {
            let taken = self.0.take(amount).await.map_err(|error| match &error {
                PurseError::Link(_) => PaymentError::Issuer(error.to_string()),
                _ => PaymentError::Empty(error.to_string()),
            })?;
            Ok(taken.iter().map(Encode::encode).collect())
        })
    }
}

/// A till that takes tokens in, for jobs and for circuits.
#[derive(Clone, Debug)]
pub struct Counter(pub Arc<till::Till>);

fn read(tokens: &[Vec<u8>]) -> Result<Vec<Token>, PaymentError> {
    let read = |bytes: &Vec<u8>| Token::decode_all(&mut bytes.as_slice());
    tokens
        .iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|_| PaymentError::Invalid("bytes that are no token".into()))
}

fn refused(error: TillError) -> PaymentError {
    match &error {
        TillError::Count(_) | TillError::Flawed { .. } | TillError::Spent(_) => {
            PaymentError::Invalid(error.to_string())
        }
        _ => PaymentError::Issuer(error.to_string()),
    }
}

impl Till for Counter {
    fn verify(&self, tokens: &[Vec<u8>]) -> Result<MicroCredits, PaymentError> {
        self.0.verify(&read(tokens)?).map_err(refused)
    }

    fn deposit(&self, tokens: Vec<Vec<u8>>) -> BoxFuture<'_, Result<MicroCredits, PaymentError>> {
        Box::pin(async move {
            match self.0.deposit(read(&tokens)?).await {
                Err(TillError::Spent(_)) => Ok(MicroCredits::ZERO),
                other => other.map_err(refused),
            }
        })
    }
}

impl Tolls for Counter {
    fn take<'a>(&'a self, toll: &'a [u8]) -> BoxFuture<'a, Result<Budget, String>> {
        Box::pin(async move {
            let tokens = vec![toll.to_vec()];
            self.verify(&tokens).map_err(|error| error.to_string())?;
            let fresh = self.deposit(tokens).await.map_err(|error| error.to_string())?;
            let units = u64::try_from(fresh.0 / Denomination::UNIT.0).unwrap_or(u64::MAX);
            if units == 0 {
                return Err("the token was spent before".into());
            }
            Ok(Budget { cells: units.saturating_mul(TOKEN_CELLS) })
        })
    }
}
