//! What is logged of a panic, wherever it happens: its message and place, and how the program came there. One event, so that
//! no other line comes in between.

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use postward::server::Limited;

/// Logs every panic from now on, whatever becomes of the task or thread.
pub(super) fn log_them() {
    std::panic::set_hook(Box::new(hook()));
}

/// To find and name the frames takes milliseconds, which a panic that any client can cause would cost again and again: a place
/// tells them once a minute. Panics of places that have told theirs are summed up above some.
fn hook() -> impl Fn(&PanicHookInfo<'_>) + Send + Sync {
    let (told, others) = (Mutex::new(BTreeMap::new()), Limited::new("a bug was met", PANICS_AT_ONCE));
    move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_due = is_due(&told, &place, now());
        if !is_due && !others.admits() {
            return;
        }
        let backtrace = is_due.then(|| compact(&Backtrace::force_capture().to_string()));
        let thread = thread::current();
        let thread = thread.name().unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| payload.downcast_ref::<&str>().copied());
        tracing::error!(panic = message, place, thread, backtrace, "a bug was met");
    }
}

/// There are no more places than the program has lines that can panic.
fn is_due(told: &Mutex<BTreeMap<String, Instant>>, place: &str, now: Instant) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = told.get(place).is_none_or(|last| now.saturating_duration_since(*last) >= MINUTE);
    if is_due {
        told.insert(place.to_owned(), now);
    }
    is_due
}

/// The frames from the one that panicked on, innermost first: `function at file:line < function at file:line`. Those of the
/// machinery of panics and of the runtime say nothing about the bug.
fn compact(backtrace: &str) -> String {
    let mut frames: Vec<(String, Option<String>)> = Vec::new();
    for line in backtrace.lines().map(str::trim) {
        if let Some(place) = line.strip_prefix("at ") {
            if let Some((_, last)) = frames.last_mut() {
                *last = Some(place.to_owned());
            }
        } else if let Some((_, function)) = line.split_once(": ") {
            frames.push((function.to_owned(), None));
        }
    }
    let is_end_of_machinery = |(function, _): &(String, _)| MACHINERY.iter().any(|end| function.contains(end));
    let begin = frames.iter().rposition(is_end_of_machinery).map_or(0, |last| last + 1);
    let ours = frames.get(begin..).unwrap_or_default().iter().filter(|(function, _)| !is_noise(function));
    let frames = ours.take(MOST_FRAMES).map(|(function, place)| match place {
        Some(place) => format!("{function} at {place}"),
        None => function.clone(),
    });
    frames.collect::<Vec<_>>().join(" < ")
}

fn is_noise(function: &str) -> bool {
    let function = function.trim_start_matches('<');
    ["tokio::", "std::", "core::", "__"].iter().any(|noise| function.starts_with(noise))
}

#[expect(clippy::disallowed_methods, reason = "the program reads the clock, so that the core need not")]
fn now() -> Instant {
    Instant::now()
}

/// How many panics a minute are told of places that have told their frames.
const PANICS_AT_ONCE: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// Deeper than a check goes, and short enough for the journal's lines.
const MOST_FRAMES: usize = 40;
/// Functions that a panic goes through; the last of them was called by whoever panicked.
const MACHINERY: [&str; 3] = ["core::panicking::", "std::panicking::begin_panic", "rust_begin_unwind"];

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::Arc;
    use std::time::SystemTime;

    use tracing::Event;
    use tracing::Subscriber;
    use tracing_subscriber::layer::Context;
    use tracing_subscriber::layer::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::event::tell;
    use super::super::format::Format;
    use super::*;

    #[inline(never)]
    fn planted(number: usize) {
        assert!(number == 0, "planted {number}");
    }

    /// What is logged while `work` panics; panics of other threads go where they went.
    fn logged(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Lines(Arc::clone(&lines)));
        let (ours, hook, me) = (std::panic::take_hook(), hook(), thread::current().id());
        std::panic::set_hook(Box::new(
            move |panic| {
                if thread::current().id() == me { hook(panic) } else { ours(panic) }
            },
        ));
        tracing::subscriber::with_default(subscriber, || catch_unwind(work).unwrap_err());
        _ = std::panic::take_hook();
        let lines = lines.lock().unwrap();
        String::from_utf8(lines.clone()).unwrap()
    }

    /// Every event as a line of text.
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let format = Format::Text { colours: false, times: false, priorities: false };
            let mut line = format.line(*event.metadata().level(), SystemTime::UNIX_EPOCH);
            tell(event, &mut line);
            self.0.lock().unwrap().extend(line.finish());
        }
    }

    #[test]
    fn a_panic_is_one_line_with_the_way_to_it() {
        let line = logged(|| planted(7));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(r#"panic="planted 7""#) && line.contains("src/log/panics.rs:"), "{line}");
        let (_, backtrace) = line.split_once("backtrace=\"").unwrap();
        let first = backtrace.split(" < ").next().unwrap();
        assert!(first.contains("panics::tests::planted at ") && first.contains("panics.rs:"), "{backtrace}");
        assert!(
            backtrace.contains(" < ") && backtrace.contains("a_panic_is_one_line_with_the_way_to_it"),
            "{backtrace}"
        );
    }

    #[test]
    fn a_place_tells_its_frames_once_a_minute() {
        let told = Mutex::default();
        let now = now();
        assert!(is_due(&told, "a:1", now) && is_due(&told, "b:1", now));
        assert!(!is_due(&told, "a:1", now + MINUTE - Duration::from_nanos(1)));
        assert!(is_due(&told, "a:1", now + MINUTE));
    }
}
