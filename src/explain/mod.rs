//! Anything with a reply code in it, explained: `postward explain`.
//!
//! [`typed()`] reads a code by itself, [`Scanner`] finds the replies in a text; an [`Explanation`] says what one of them means
//! and what to do, a [`Summary`] how often each stands in a log. Reads no files.

mod explanation;
mod found;
mod origin;
mod scan;
mod summary;
mod typed;

pub use explanation::Explanation;
pub use found::Found;
pub use found::Speaker;
pub use origin::Origins;
pub use scan::Scanner;
pub use summary::Summary;
pub use typed::Part;
pub use typed::Typed;
pub use typed::is_port;
pub use typed::typed;
