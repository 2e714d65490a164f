//! Why an importer is not run, and why one that ran ended early.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why an importer gives no records, or no more of them.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The component's file cannot be read.
    #[error("the importer {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The component is larger than the limit.
    #[error(
        "the importer has more than the {most} bytes one may have; build it without debugging information"
    )]
    Large {
        /// The limit, in bytes.
        most: u64,
    },
    /// The file holds no component.
    #[error(
        "this is no importer: {reason}; an importer is a WebAssembly component of the world potluck:importer/importer"
    )]
    NotComponent {
        /// What shows that it is none.
        reason: String,
    },
    /// The component asks for what no importer gets.
    #[error(
        "the importer asks for what no importer gets: {}; it may read one folder through WASI 0.2, and must be built without these",
        names.join(", ")
    )]
    Imports {
        /// What it asks for.
        names: Vec<String>,
    },
    /// The component does not do what importers do.
    #[error(
        "the component does not fit the world potluck:importer/importer: {reason}; build it against wit/importer of this release"
    )]
    World {
        /// What does not fit.
        reason: String,
    },
    /// The machine cannot run components.
    #[error("components cannot be run here: {0}")]
    Engine(String),
    /// What is to be imported is not there or cannot be read.
    #[error("{} cannot be imported: {source}", path.display())]
    Path {
        /// What was named.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is to be imported is neither a file nor a folder.
    #[error("{} is neither a file nor a folder; an importer reads nothing else", path.display())]
    Kind {
        /// What was named.
        path: PathBuf,
    },
    /// The importer ended early. What it gave before is as good as without this.
    #[error("the importer {importer} {stop}{}", Said(said))]
    Stopped {
        /// Its name, or its hash where it has not said its name.
        importer: String,
        /// Why.
        stop: Stop,
        /// The end of what it wrote to stdout and stderr.
        said: String,
    },
}

/// The end of what an importer wrote, behind an error.
struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.0.trim();
        if said.is_empty() { Ok(()) } else { write!(f, "\nthe last it said:\n{said}") }
    }
}

/// Why an importer ended early, as the end of a sentence that begins with its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// What it says of itself does not keep the bounds.
    #[error("does not say properly what it is: {0}; its author must correct that")]
    Label(String),
    /// It does not take what it was given.
    #[error("does not take this: {0}")]
    Refused(String),
    /// It gave up.
    #[error("gave up: {0}")]
    Failed(String),
    /// One call gave more than the WIT allows.
    #[error("gave {count} {what} at once, and {most} are allowed; its author must give them in parts")]
    Batch {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        most: usize,
    },
    /// One call gave more bytes than the limit.
    #[error("gave more than {most} bytes at once; its author must give them in parts")]
    Bytes {
        /// The limit.
        most: usize,
    },
    /// It gave more than an import may have.
    #[error(
        "gave more than the {most} {what} one import may have; import the parts of the folder one by one"
    )]
    Flood {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: u64,
    },
    /// It used up a call's instructions.
    #[error(
        "did not come to an end: one call used up {fuel} units of work; it loops, or this is too much for it"
    )]
    Fuel {
        /// The limit.
        fuel: u64,
    },
    /// A call took too long.
    #[error("did not come to an end within {} s; it loops, or this is too much for it", limit.as_secs())]
    Time {
        /// The limit that was met: of one call or of all.
        limit: Duration,
    },
    /// It needed more memory than the limit, and failed for it.
    #[error("needed more than {} MiB of memory; import the parts of the folder one by one", most >> 20)]
    Memory {
        /// The limit, in bytes.
        most: usize,
    },
    /// It opened too much at once.
    #[error("opened more than {most} files at once")]
    Handles {
        /// The limit.
        most: usize,
    },
    /// It reached for the network.
    #[error("reached for the network ({function}), which importers do not have; do not use it")]
    Network {
        /// What it called.
        function: String,
    },
    /// It ended itself.
    #[error("ended itself with status {status}")]
    Exit {
        /// The status.
        status: i32,
    },
    /// It crashed.
    #[error("crashed: {0}")]
    Crash(String),
    /// The machine has no thread for it.
    #[error("could not be started: {0}")]
    Thread(String),
}
