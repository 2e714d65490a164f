//! Importers of others: components that read a foreign format and give records.
//!
//! An importer is a program that its owner got from somewhere. It may read what it is to import and nothing else:
//!
//! * It sees one folder, `/in`, read-only: the folder that is to be imported, or a private one that holds the one
//!   file that is. A path that leads out of it, by `..` or by a symbolic link, is refused.
//! * It has no network, no environment, no arguments and no input. Interfaces of WASI that a language's library asks
//!   for without using them (sockets) are there and end the importer when they are called; all others are refused
//!   before anything runs ([`ForeignError::Imports`]).
//! * Both clocks stand still, waiting takes no time and what is random is always the same, so that two runs over the
//!   same folder give the same records.
//! * Memory, instructions for a call, time, handles and what it may give back are bounded ([`Limits`]).
//!
//! It runs on a thread of its own, in the process of whoever imports: the command line, so that neither the node nor
//! its memory depends on it. What comes out is an iterator ([`Import`]): records and problems as they are found, and
//! an error when the importer fails. What came before the error is as good as without it.

mod bindings;
mod bounds;
mod component;
mod entry;
mod error;
mod gate;
mod grant;
mod guest;
mod limits;
mod run;
#[cfg(test)]
mod tests;

pub use component::Importer;
pub use entry::{Description, Entry, Item, Problem};
pub use error::{ForeignError, Stop};
pub use grant::Grant;
pub use limits::Limits;
pub use run::{Import, Step, Used};
