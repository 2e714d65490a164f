//! The fields in an address after `?`.

use std::ops::RangeInclusive;

use axum::{extract::Query as Pairs, http::Uri};

use super::{super::ApiError, parse};
use crate::{
    config::value::nearest,
    memory::{Filter, Millis, request::MAX_LIMIT},
};

/// Most fields an address may have.
const MOST: usize = 128;

/// What stands after `?`; taken field by field, so that what is left over can be refused by name.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    asked: Vec<&'static str>,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::invalid("query", format!("cannot be read: {error}")))?;
        if pairs.len() > MOST {
            return Err(ApiError::invalid("query", format!("at most {MOST} fields are possible")));
        }
        Ok(Self { pairs, asked: Vec::new() })
    }

    /// All values of a field; also those of one value with commas.
    fn list(&mut self, field: &'static str) -> Vec<String> {
        self.asked.push(field);
        let (taken, left) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(name, _)| name.as_str() == field);
        self.pairs = left;
        let taken: Vec<(String, String)> = taken;
        taken
            .iter()
            .flat_map(|(_, value)| value.split(','))
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
            .collect()
    }

    /// The last value of a field.
    pub(super) fn string(&mut self, field: &'static str) -> Result<Option<String>, ApiError> {
        self.asked.push(field);
        let value = self.pairs.iter().rfind(|(name, _)| name == field).map(|(_, value)| value.clone());
        self.pairs.retain(|(name, _)| name != field);
        if let Some(value) = &value {
            parse::check_name(field, value, parse::MAX_REASON)?;
        }
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// A field that is true when it is there without a value.
    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, ApiError> {
        let present = self.pairs.iter().any(|(name, _)| name == field);
        match self.string(field)?.as_deref() {
            None => Ok(present),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(ApiError::invalid(field, "must be true or false")),
        }
    }

    pub(super) fn integer(
        &mut self,
        field: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.string(field)? else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let reason = format!("must be a whole number from {} to {}", range.start(), range.end());
            ApiError::invalid(field, reason)
        })
    }

    pub(super) fn limit(&mut self) -> Result<usize, ApiError> {
        Ok(self.integer("limit", 1..=MAX_LIMIT)?.unwrap_or(parse::DEFAULT_RECENT))
    }

    fn moment(&mut self, field: &'static str) -> Result<Option<Millis>, ApiError> {
        let Some(text) = self.string(field)? else { return Ok(None) };
        Millis::parse(&text).map(Some).map_err(|error| ApiError::invalid(field, error))
    }

    pub(super) fn filter(&mut self) -> Result<Filter, ApiError> {
        let kinds = self.list("kinds");
        let tags = self.list("tags");
        if tags.len() > parse::MAX_TAGS {
            return Err(ApiError::invalid("tags", format!("at most {} are possible", parse::MAX_TAGS)));
        }
        Ok(Filter {
            project: self.string("project")?,
            kinds: kinds.iter().map(|text| parse::kind("kinds", text)).collect::<Result<_, _>>()?,
            tags,
            since: self.moment("since")?,
            until: self.moment("until")?,
        })
    }

    /// Refuses what nothing has taken.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let Some((unknown, _)) = self.pairs.first() else { return Ok(()) };
        let reason = match nearest(unknown, self.asked.iter().copied()) {
            Some(known) => format!("is not a field here; did you mean `{known}`?"),
            None if self.asked.is_empty() => "is not a field here; there are none".to_owned(),
            None => format!("is not a field here; there are {}", self.asked.join(", ")),
        };
        let shown: String = unknown.chars().take(64).collect();
        Err(ApiError::invalid(shown, reason).code("unknown_field"))
    }
}
