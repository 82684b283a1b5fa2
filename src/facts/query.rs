//! What the policy may ask of the world outside, and what it may hear.
//!
//! A failed look-up is an answer too. A question carries all it needs, so that who answers knows nothing of sessions.

use std::time::Duration;
use std::time::SystemTime;

use smallvec::SmallVec;

/// A question whose answer is not in the session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Query {
    /// How much is free on the policy's `n`th path?
    DiskFree(usize),
    /// Is there room for this in a counter? If so, it is reserved.
    Hold(Hold),
}

/// A reservation in a counter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hold {
    /// The policy's `n`th counter.
    pub counter: usize,
    /// Which of its rows of bounds.
    pub row: usize,
    /// Whose count.
    pub key: Key,
    /// How much.
    pub amount: Amount,
    /// How long.
    pub scope: Scope,
}

/// Whose count: the parts of a key, told apart by NUL, which no part can contain.
pub type Key = SmallVec<[u8; 48]>;

/// How much to reserve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Amount {
    /// This much more than the scope already holds of this key.
    Add(u64),
    /// As much as makes the scope's holdings of this key exactly this.
    Total(u64),
    /// Nothing: only whether too many were refused already (bad recipients).
    Nothing,
    /// One recipient that is tried; what becomes of it is charged once it is known (bad recipients).
    Try,
    /// One more of the different values of this key, unless it is one of them already: built as keys are.
    Value(Key),
}

/// How long a reservation lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Until the message ends, and then charged whatever became of it.
    Attempt,
    /// Until the connection ends (concurrent connections).
    Connection,
    /// Charged at once (connections).
    Instant,
    /// Until the message ends: charged if it was accepted, given back if not.
    Message,
    /// Only asked for now; charged if the message, or the recipient, is refused or given up.
    Refused,
}

/// What came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// That many bytes are free.
    Bytes(u64),
    /// No room. Nothing was reserved, unless the counter has steps, and this is one above which counting goes on.
    Exceeded(Exceeded),
    /// Nobody can say.
    Failed,
    /// There was room; it is reserved.
    Within,
}

/// What of a counter said no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// The key is blocked, by an administrator or because it was over the limit; nothing was judged.
    Block,
    /// The bound on what is held at once.
    Concurrent,
    /// One of the counter's rates.
    Rate(usize),
    /// One of its shares.
    Share(usize),
}

/// How a counter said no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exceeded {
    /// Which of the counter's rows of bounds.
    pub row: usize,
    /// Which of the counter's steps; 0 where it has none.
    pub step: usize,
    /// What said no; of rates and shares, one of the row's.
    pub bound: Bound,
    /// What is charged inside the window and reserved; nothing for a block, hundredths for a share.
    pub used: u64,
    /// When the amount would fit if nothing else happened; `None` if it never will by waiting alone.
    pub retry_after: Option<Duration>,
    /// The same as a time of day.
    pub retry_at: Option<SystemTime>,
}
