//! Objects whose fields are read one by one, so that one of a wrong kind does not spoil the rest.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The fields of an object, as they are written.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn read(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self).map_err(|error| format!("is no JSON object: {error}"))
    }

    /// An object in a field.
    pub(crate) fn object(&self, name: &str) -> Option<Fields<'a>> {
        Self::read(self.0.get(name)?.get()).ok()
    }

    /// The elements of a list in a field.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// A text in a field.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        text(self.0.get(name)?)
    }

    /// A number in a field.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// Whether a field says yes.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() == "true")
    }

    /// Whether there is such a field, with something in it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }

    /// All fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), *value))
    }
}

/// A text.
pub(crate) fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}
