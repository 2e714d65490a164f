use super::{CallError, Fault, Kind};

/// Why a component is no policy that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Too many bytes.
    #[error(
        "the component has {size} bytes, and at most {most} are taken; build it for size and strip names and \
         debugging sections"
    )]
    Large {
        /// Its bytes.
        size: usize,
        /// Bytes that it may have.
        most: usize,
    },
    /// A core module, not wrapped into a component.
    #[error(
        "this is a core module and no component; wrap it with `potluck policy build`, or with `wasm-tools component new`"
    )]
    CoreModule,
    /// Not WebAssembly, damaged, or with features that policies do not have.
    #[error(
        "the component is not valid: {0}; it is damaged, or was built with features that policies cannot use, such as \
         SIMD, threads or 64-bit memory"
    )]
    Invalid(String),
    /// It imports something.
    #[error(
        "the component imports `{0}`, and a policy imports nothing; build it for wasm32-unknown-unknown, without WASI"
    )]
    Import(String),
    /// Its exports are not those of one world.
    #[error(
        "the component exports {}, and a policy exports `potluck:policy/about` and exactly one of `potluck:policy/routing`, \
         `…/pricing` and `…/slashing`; build it against one world of wit/policy",
        told(exports)
    )]
    World {
        /// What it exports.
        exports: Vec<String>,
    },
    /// A version of the interface that this node does not know.
    #[error(
        "the component exports `{export}`, and this node knows version 0.1; use a newer node or an older interface"
    )]
    Version {
        /// The export.
        export: String,
    },
    /// A function has other parameters or another result.
    #[error(
        "the component does not have the interface that its exports name: {0}; build it against wit/policy"
    )]
    Shape(String),
    /// It has a start function.
    #[error(
        "the component has a start function, and a policy runs only when it is asked; build it as a library without an \
         initialiser"
    )]
    Start,
    /// It starts with too much memory.
    #[error(
        "the component starts with {wants} bytes of memory, and {most} are given; make its stack or its data smaller"
    )]
    Memory {
        /// Bytes it wants.
        wants: u64,
        /// Bytes it may have.
        most: u64,
    },
    /// Too many parts of a sort.
    #[error(
        "the component has more {what} than {most}, which no policy needs; build it with the usual tools"
    )]
    Many {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Components nested in components.
    #[error(
        "the component has {0} within a component within it, which no policy needs; build it with the usual tools"
    )]
    Nested(&'static str),
    /// The compiler refused it.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// It failed to say what it is.
    #[error("the policy fails to describe itself: {0}")]
    Describe(#[source] CallError),
    /// What it says of itself is out of bounds.
    #[error("what the policy says of itself is out of bounds: {0}")]
    Label(#[source] Fault),
    /// It failed a vector.
    #[error("the policy fails the vector `{vector}`: {error}; `potluck policy try` shows the question")]
    Vector {
        /// The vector's name.
        vector: String,
        /// How.
        error: CallError,
    },
    /// It answered a question in two ways.
    #[error("the policy answers the vector `{vector}` differently the second time, which no policy may")]
    Unsteady {
        /// The vector's name.
        vector: String,
    },
    /// It does not answer as its own vectors say.
    #[error(
        "the policy's own vector `{vector}` expects another answer; the component and its vectors do not belong together"
    )]
    Unexpected {
        /// The vector's name.
        vector: String,
    },
    /// Its own vectors cannot be read.
    #[error("the policy's own vectors cannot be read: {0}; build them with `potluck policy build`")]
    Golden(String),
    /// A policy of one kind where another belongs.
    #[error("this is a {found} policy, and a {wanted} policy belongs here")]
    Kind {
        /// What it is.
        found: Kind,
        /// What was wanted.
        wanted: Kind,
    },
}

impl LoadError {
    /// Whether it says more about this machine at this moment than about the component: it was too busy to try it.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Describe(error) | Self::Vector { error, .. } => {
                matches!(error, CallError::Busy(_) | CallError::Time(_))
            }
            _ => false,
        }
    }
}

fn told(exports: &[String]) -> String {
    let mut names: Vec<_> = exports.iter().take(8).map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        names.push("nothing".into());
    }
    if exports.len() > 8 {
        names.push("more".into());
    }
    names.join(", ")
}
