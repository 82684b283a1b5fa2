//! Anything with a reply code in it, explained: `postward explain`.
//!
//! [`typed()`] reads a code by itself, [`Scanner`] finds the replies in a text; an [`Explanation`] says what one of them means
//! and what to do, a [`Summary`] how often each stands in a log. Reads no files.

mod advice;
mod digits;
mod explanation;
mod found;
mod message;
mod origin;
mod scan;
mod summary;
mod typed;
mod visible;

pub use advice::for_class;
pub use explanation::Explanation;
pub use found::Found;
pub use found::Speaker;
pub use message::is_message;
pub use message::texts;
pub use origin::Origins;
pub use scan::Scanner;
pub use summary::Summary;
pub use typed::Part;
pub use typed::Typed;
pub use typed::is_port;
pub use typed::typed;
pub use visible::is_hidden;
pub use visible::visible;
