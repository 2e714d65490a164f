//! What a member may do.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::names;

/// Most models that a scope names.
pub const MAX_MODELS: usize = 16;
/// Most rules about memory in one grant.
pub const MAX_MEMORY: usize = 16;
/// Longest name of a model or a project, in bytes.
pub const MAX_WORD: usize = 96;

/// What a member may do. A grant that is not given is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
#[serde(default)]
pub struct Grants {
    /// It may answer the jobs of others.
    #[n(0)]
    pub serve: bool,
    /// It may have jobs answered by others.
    #[n(1)]
    pub uses: bool,
    /// It may carry the (encrypted) traffic of others.
    #[n(2)]
    pub relay: bool,
    /// The models that it may use.
    #[n(3)]
    pub models: Scope,
    /// The memory that is shared with it.
    #[n(4)]
    pub memory: Vec<MemoryGrant>,
    /// Most jobs per minute; `None` sets no limit.
    #[n(5)]
    pub rate: Option<u32>,
    /// It may invite, renew and revoke members.
    #[n(6)]
    pub admin: bool,
    /// The models whose files it may copy, among those that it may use; `None`: none. Papers that do not name it,
    /// older ones among them, grant nothing.
    #[n(7)]
    pub fetch: Option<Scope>,
}

/// Some models, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every model.
    #[default]
    #[n(0)]
    All,
    /// These, by name.
    #[n(1)]
    Only(#[n(0)] Vec<String>),
}

/// What memory is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(array)]
pub struct MemoryGrant {
    /// The project; `None` stands for all.
    #[n(0)]
    pub project: Option<String>,
    /// Its entries may be read.
    #[n(1)]
    pub read: bool,
    /// Entries of the member are taken in.
    #[n(2)]
    pub write: bool,
}

/// A grant that cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the grant `{field}` {reason}")]
pub struct GrantError {
    /// The part of the grant.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Default for Grants {
    /// Serves, uses and relays every model; shares no memory and no files; no administrator.
    fn default() -> Self {
        Self {
            serve: true,
            uses: true,
            relay: true,
            models: Scope::All,
            memory: Vec::new(),
            rate: None,
            admin: false,
            fetch: None,
        }
    }
}

impl Scope {
    /// Whether the model `name` lies in it.
    pub fn covers(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(models) => models.iter().any(|model| model == name),
        }
    }
}

impl Grants {
    /// What the founder of a pool has: everything.
    pub fn everything() -> Self {
        let memory = vec![MemoryGrant { project: None, read: true, write: true }];
        Self { memory, admin: true, fetch: Some(Scope::All), ..Self::default() }
    }

    /// Whether the member may copy the file of the model `name`: it must be one that it may use, too.
    pub fn fetches(&self, name: &str) -> bool {
        self.models.covers(name) && self.fetch.as_ref().is_some_and(|scope| scope.covers(name))
    }

    /// Whether the member may read the memory of `project`.
    pub fn reads(&self, project: Option<&str>) -> bool {
        self.memory.iter().any(|rule| rule.read && rule.covers(project))
    }

    /// Whether entries of the member about `project` are taken in.
    pub fn writes(&self, project: Option<&str>) -> bool {
        self.memory.iter().any(|rule| rule.write && rule.covers(project))
    }

    /// Checks counts and lengths.
    ///
    /// # Errors
    /// [`GrantError`] with the part that is too long or has control characters.
    pub fn check(&self) -> Result<(), GrantError> {
        let fail = |field, reason: String| Err(GrantError { field, reason });
        for (field, scope) in [("models", Some(&self.models)), ("fetch", self.fetch.as_ref())] {
            let Some(Scope::Only(models)) = scope else { continue };
            if models.len() > MAX_MODELS {
                return fail(field, format!("names {} models, at most {MAX_MODELS} fit", models.len()));
            }
            if let Some(model) = models.iter().find(|model| !word(model)) {
                return fail(
                    field,
                    format!("holds a name that is empty, too long or unprintable: {model:?}"),
                );
            }
        }
        if self.memory.len() > MAX_MEMORY {
            return fail("memory", format!("has {} rules, at most {MAX_MEMORY} fit", self.memory.len()));
        }
        let projects = self.memory.iter().filter_map(|rule| rule.project.as_ref());
        match projects.into_iter().find(|project| !word(project)) {
            Some(project) => {
                fail("memory", format!("holds a project that is empty, too long or unprintable: {project:?}"))
            }
            None => Ok(()),
        }
    }
}

impl MemoryGrant {
    fn covers(&self, project: Option<&str>) -> bool {
        self.project.is_none() || self.project.as_deref() == project
    }
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_WORD && !text.chars().any(names::unprintable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_say_what_they_cover() {
        let rule = |project: Option<&str>, read, write| MemoryGrant {
            project: project.map(str::to_owned),
            read,
            write,
        };
        let grants = Grants {
            memory: vec![rule(Some("a"), true, false), rule(Some("b"), true, true)],
            models: Scope::Only(vec!["m".into()]),
            ..Grants::default()
        };
        assert!(grants.reads(Some("a")) && !grants.writes(Some("a")) && grants.writes(Some("b")));
        assert!(!grants.reads(None) && Grants::everything().writes(None));
        assert!(grants.models.covers("m") && !grants.models.covers("n"));
        assert!(grants.check().is_ok());
        let long = Grants { models: Scope::Only(vec!["x".repeat(97)]), ..Grants::default() };
        assert_eq!(long.check().unwrap_err().field, "models");
        let long = Grants { fetch: Some(Scope::Only(vec![String::new()])), ..Grants::default() };
        assert_eq!(long.check().unwrap_err().field, "fetch");
    }

    /// The grants of papers that were signed before files could be copied.
    #[derive(Encode, Decode, Debug, PartialEq)]
    #[cbor(array)]
    struct Before {
        #[n(0)]
        serve: bool,
        #[n(1)]
        uses: bool,
        #[n(2)]
        relay: bool,
        #[n(3)]
        models: Scope,
        #[n(4)]
        memory: Vec<MemoryGrant>,
        #[n(5)]
        rate: Option<u32>,
        #[n(6)]
        admin: bool,
    }

    #[test]
    fn older_papers_grant_no_copies_and_stay_as_they_are() {
        let before = Before {
            serve: true,
            uses: true,
            relay: true,
            models: Scope::All,
            memory: Vec::new(),
            rate: None,
            admin: false,
        };
        let bytes = minicbor::to_vec(&before).unwrap();
        let grants: Grants = minicbor::decode(&bytes).unwrap();
        assert_eq!(grants, Grants::default());
        assert!(!grants.fetches("m"));
        assert_eq!(minicbor::to_vec(&grants).unwrap(), bytes);
        let scope = Some(Scope::Only(vec!["m".into(), "n".into()]));
        let models = Scope::Only(vec!["m".into()]);
        let grants = Grants { fetch: scope, models, ..Grants::default() };
        assert!(grants.fetches("m") && !grants.fetches("n"), "a copy can be used");
        let bytes = minicbor::to_vec(&grants).unwrap();
        assert!(minicbor::decode::<Before>(&bytes).is_ok(), "older machines pass over it");
        assert_eq!(minicbor::decode::<Grants>(&bytes).unwrap(), grants);
    }
}
