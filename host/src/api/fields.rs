//! Typed access to a request's fields, so that every refusal names the field and what would be right.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::ApiError;
use crate::config::value::nearest;

/// The fields of one JSON object. `null` counts as absent.
#[derive(Debug)]
pub struct Fields {
    prefix: String,
    map: Map<String, Value>,
    /// What has been asked for: the fields that the surface knows.
    asked: Vec<String>,
}

impl Fields {
    /// The fields of a request's body.
    pub fn new(map: Map<String, Value>) -> Self {
        Self { prefix: String::new(), map, asked: Vec::new() }
    }

    /// The full name of a field.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// Whether a field is there and not `null`.
    pub fn has(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// Takes a field as it is.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.asked.push(field.to_owned());
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    /// Takes a string.
    ///
    /// # Errors
    /// Another type.
    pub fn string(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, "a string", &other)),
        }
    }

    /// Takes a string that must be there and not empty.
    ///
    /// # Errors
    /// Absence, emptiness, another type.
    pub fn required_string(&mut self, field: &str) -> Result<String, ApiError> {
        match self.string(field)? {
            Some(text) if !text.trim().is_empty() => Ok(text),
            _ => {
                Err(ApiError::invalid(self.name(field), "is required and must be a string that is not empty"))
            }
        }
    }

    /// Takes a boolean.
    ///
    /// # Errors
    /// Another type.
    pub fn bool(&mut self, field: &str) -> Result<Option<bool>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(field, "true or false", &other)),
        }
    }

    /// Takes a whole number within a range.
    ///
    /// # Errors
    /// Another type, or a number out of range.
    pub fn integer(&mut self, field: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| {
            let number = value.as_f64()?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be whole and within f64's exact integers"
            )]
            (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
        });
        match whole {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (low, high) = (*range.start(), *range.end());
                let right = match (low, high) {
                    (i64::MIN, i64::MAX) => "a whole number".to_owned(),
                    (_, high) if high >= i64::from(u32::MAX) => format!("a whole number of at least {low}"),
                    _ => format!("a whole number from {low} to {high}"),
                };
                Err(self.wrong(field, &right, &value))
            }
        }
    }

    /// Takes a finite number within a range.
    ///
    /// # Errors
    /// Another type, or a number out of range.
    pub fn number(&mut self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "sampling works in f32")]
            Some(number) if range.contains(&number) => Ok(Some(number as f32)),
            _ => {
                let right = format!("a number from {} to {}", range.start(), range.end());
                Err(self.wrong(field, &right, &value))
            }
        }
    }

    /// Takes an array.
    ///
    /// # Errors
    /// Another type.
    pub fn array(&mut self, field: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(field, "an array", &other)),
        }
    }

    /// Takes an object's fields.
    ///
    /// # Errors
    /// Another type.
    pub fn object(&mut self, field: &str) -> Result<Option<Self>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Self { prefix: format!("{}.", self.name(field)), map, asked: Vec::new() }))
            }
            Some(other) => Err(self.wrong(field, "an object", &other)),
        }
    }

    /// Takes one string or a list of at most `most` strings, none of them empty.
    ///
    /// # Errors
    /// Another type, too many, an empty one.
    pub fn strings(&mut self, field: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let items = match self.take(field) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(one) => vec![one],
        };
        if items.len() > most {
            return Err(ApiError::invalid(
                self.name(field),
                format!("at most {most} are possible, not {}", items.len()),
            ));
        }
        items
            .into_iter()
            .map(|item| match item {
                Value::String(text) if !text.is_empty() => Ok(text),
                Value::String(_) => Err(ApiError::invalid(self.name(field), "must not be empty")),
                other => Err(self.wrong(field, "a string or a list of strings", &other)),
            })
            .collect()
    }

    /// Refuses what is left, for surfaces whose every field matters: what is ignored is not remembered.
    ///
    /// # Errors
    /// A field that nothing has taken, with the nearest one that exists.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some(unknown) = self.map.iter().find(|(_, value)| !value.is_null()).map(|(name, _)| name) else {
            return Ok(());
        };
        let reason = match nearest(unknown, self.asked.iter().map(String::as_str)) {
            Some(known) => format!("is not a field here; did you mean `{known}`?"),
            None => format!("is not a field here; there are {}", self.asked.join(", ")),
        };
        let shown: String = unknown.chars().take(64).collect();
        Err(ApiError::invalid(self.name(&shown), reason).code("unknown_field"))
    }

    /// The names of fields that nothing has taken; logged, not refused, as these protocols want it.
    pub fn log_unknown(&self, surface: &str) {
        if !self.map.is_empty() && tracing::enabled!(tracing::Level::DEBUG) {
            let names: Vec<_> = self.map.keys().take(16).map(|name| self.name(name)).collect();
            tracing::debug!(surface, fields = names.join(", "), "unknown fields ignored");
        }
    }

    /// The names of the fields that are left.
    pub fn keys(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// What is left.
    pub fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// A refusal of a value that is not what it must be.
    pub fn wrong(&self, field: &str, right: &str, value: &Value) -> ApiError {
        let mut shown = value.to_string();
        if shown.len() > 40 {
            shown = format!("{}…", shown.chars().take(40).collect::<String>());
        }
        ApiError::invalid(self.name(field), format!("must be {right}, not {shown}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        match serde_json::from_str(text).unwrap() {
            Value::Object(map) => Fields::new(map),
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn wrong_values_are_named() {
        let error =
            fields(r#"{"max_tokens":-1}"#).integer("max_tokens", 1..=i64::from(u32::MAX)).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("max_tokens"));
        assert!(error.message.contains("at least 1, not -1"), "{}", error.message);
        assert!(fields(r#"{"t":"1"}"#).number("t", 0.0..=2.0).is_err());
        assert!(fields(r#"{"t":2.5}"#).number("t", 0.0..=2.0).is_err());
        assert!(fields(r#"{"n":1.5}"#).integer("n", 0..=9).is_err());
        assert_eq!(fields(r#"{"n":2.0}"#).integer("n", 0..=9).unwrap(), Some(2));
        assert_eq!(fields(r#"{"n":null}"#).integer("n", 0..=9).unwrap(), None);
        let error = fields(r#"{"stop":["1","2","3","4","5"]}"#).strings("stop", 4).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("stop"));
        let mut outer = fields(r#"{"options":{"top_k":"x"}}"#);
        let error = outer.object("options").unwrap().unwrap().integer("top_k", 0..=9).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("options.top_k"));
    }
}
