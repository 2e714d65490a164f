//! Sets of tags, each text and each set kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// Sets of tags by number. Most records share their set with many others.
#[derive(Debug, Default)]
pub(super) struct TagSets {
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, u32>,
    sets: Vec<Arc<[u32]>>,
    by_set: HashMap<Arc<[u32]>, u32>,
}

impl TagSets {
    /// The number of a set.
    pub(super) fn intern(&mut self, tags: &[String]) -> u32 {
        let set: Vec<u32> = tags.iter().map(|tag| self.name(tag)).collect();
        if let Some(number) = self.by_set.get(set.as_slice()) {
            return *number;
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let set: Arc<[u32]> = set.into();
        self.sets.push(Arc::clone(&set));
        self.by_set.insert(set, number);
        number
    }

    /// The number of a tag.
    fn name(&mut self, tag: &str) -> u32 {
        if let Some(number) = self.by_name.get(tag) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let tag: Arc<str> = tag.into();
        self.names.push(Arc::clone(&tag));
        self.by_name.insert(tag, number);
        number
    }

    /// All tags of some sets, sorted, each once.
    pub(super) fn union(&self, sets: impl Iterator<Item = u32>) -> Vec<String> {
        let set = |number: u32| usize::try_from(number).ok().and_then(|number| self.sets.get(number));
        let name = |number: &u32| usize::try_from(*number).ok().and_then(|number| self.names.get(number));
        let mut tags: Vec<String> = sets
            .filter_map(set)
            .flat_map(|set| set.iter().filter_map(name))
            .map(|tag| tag.to_string())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }
}
