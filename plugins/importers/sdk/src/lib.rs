//! What an importer for Potluck's memory is written with in Rust.
//!
//! An importer is a component that turns files of a foreign format into records. Write a type that implements
//! [`Importer`], name it in [`export_importer!`], and read the files with [`files`]:
//!
//! ```no_run
//! use potluck_importer::{Batch, Description, Importer, Kind, entry, files};
//!
//! /// Every file of the folder is a record.
//! struct Whole(Vec<String>);
//!
//! impl Importer for Whole {
//!     fn describe() -> Description {
//!         Description {
//!             name: "whole".into(),
//!             version: "0.1.0".into(),
//!             summary: "Takes every file as one record.".into(),
//!             licence: "Apache-2.0".into(),
//!         }
//!     }
//!
//!     fn open(name: &str) -> Result<Self, String> {
//!         let names = if name.is_empty() { files::list("").map_err(|e| e.to_string())? } else { vec![name.into()] };
//!         Ok(Self(names))
//!     }
//!
//!     fn next(&mut self) -> Result<Batch, String> {
//!         let mut batch = Batch { entries: Vec::new(), problems: Vec::new() };
//!         if let Some(name) = self.0.pop() {
//!             match files::read_to_string(&name) {
//!                 Ok(text) => batch.entries.push(entry(text, Kind::Reference, &name)),
//!                 Err(error) => batch.problems.push(potluck_importer::problem(&name, error.to_string())),
//!             }
//!         }
//!         Ok(batch)
//!     }
//! }
//!
//! potluck_importer::export_importer!(Whole);
//! # fn main() {}
//! ```
//!
//! A batch without entries and problems ends the import. The crate compiles for `wasm32-unknown-unknown` (files are
//! reached through WASI 0.2 without a C library) and, for tests, for the machine at hand, where `/in` is the folder
//! that [`files::root`] names.

pub mod files;

#[doc(hidden)]
pub mod raw {
    #![allow(missing_docs, unreachable_pub, unsafe_code, reason = "made from the WIT, which documents it")]

    wit_bindgen::generate!({
        path: "../../../wit/importer",
        world: "potluck:importer/importer",
        pub_export_macro: true,
        default_bindings_module: "potluck_importer::raw",
        export_macro_name: "export_world",
        additional_derives: [Clone, PartialEq, Eq],
    });
}

pub use raw::potluck::importer::types::{Batch, Description, Entry, Kind, Problem};

/// What an importer does.
pub trait Importer: Sized + 'static {
    /// The label.
    fn describe() -> Description;

    /// Looks at a file of `/in` or, when `name` is empty, at the whole folder.
    ///
    /// # Errors
    /// Why it cannot be imported, for the one who asked.
    fn open(name: &str) -> Result<Self, String>;

    /// The next records and problems, at most 256 of each; none of both: the end.
    ///
    /// # Errors
    /// Why the import cannot go on. What was given before stays.
    fn next(&mut self) -> Result<Batch, String>;
}

/// An entry that has a text, a kind and a place.
pub fn entry(content: impl Into<String>, kind: Kind, source: &str) -> Entry {
    Entry {
        content: content.into(),
        kind,
        project: None,
        tags: Vec::new(),
        occurred_at: None,
        source: source.into(),
    }
}

/// A problem at a place.
pub fn problem(source: &str, reason: impl Into<String>) -> Problem {
    Problem { source: source.into(), reason: reason.into() }
}

/// Makes a component of an [`Importer`].
#[macro_export]
macro_rules! export_importer {
    ($importer:ty) => {
        const _: () = {
            ::std::thread_local! {
                static OPENED: ::core::cell::RefCell<::core::option::Option<$importer>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            struct World;

            impl $crate::raw::Guest for World {
                fn describe() -> $crate::Description {
                    <$importer as $crate::Importer>::describe()
                }

                fn open(name: ::std::string::String) -> ::core::result::Result<(), ::std::string::String> {
                    let opened = <$importer as $crate::Importer>::open(&name)?;
                    OPENED.with_borrow_mut(|it| *it = ::core::option::Option::Some(opened));
                    ::core::result::Result::Ok(())
                }

                fn next() -> ::core::result::Result<$crate::Batch, ::std::string::String> {
                    OPENED.with_borrow_mut(|it| match it {
                        ::core::option::Option::Some(it) => $crate::Importer::next(it),
                        ::core::option::Option::None => {
                            ::core::result::Result::Err("next was called before open".into())
                        }
                    })
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::raw::export_world! { World with_types_in $crate::raw }

            // On the machine of its author nobody calls it, and nothing of it is dead all the same.
            #[cfg(not(target_family = "wasm"))]
            const _: (
                fn() -> $crate::Description,
                fn(::std::string::String) -> ::core::result::Result<(), ::std::string::String>,
                fn() -> ::core::result::Result<$crate::Batch, ::std::string::String>,
            ) = (
                <World as $crate::raw::Guest>::describe,
                <World as $crate::raw::Guest>::open,
                <World as $crate::raw::Guest>::next,
            );
        };
    };
}
