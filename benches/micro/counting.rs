//! What is counted: limits and metrics.

use std::time::Duration;
use std::time::Instant;

use divan::Bencher;
use futures_util::FutureExt as _;
use postward::facts::Answer;
use postward::lookup::Ledger;
use postward::lookup::Lookup as _;
use postward::lookup::Shared;
use postward::metrics::Metrics;
use postward::session::Action;
use postward::session::Settlement;

use crate::sample;
use crate::sample::give;

/// One check of a limit by client: asked, held and charged.
#[divan::bench(sample_size = 200)]
fn one_check_of_a_limit(bencher: Bencher<'_, '_>) {
    let policy = sample::policy(
        "[[rule]]\nname = \"rate\"\nlimit = { key = \"client\", messages = \"1000000/minute\" }\n".to_owned(),
    );
    let shared = Shared::new(policy.clone());
    let mut session = sample::session(&policy);
    session.handle(sample::connect(b"10.1.2.3")).unwrap();
    let Action::Ask(query) = session.handle(sample::mail(b"<user@s1.example.org>")).unwrap() else {
        panic!("nothing asks about the limit");
    };
    let mut ledger = Ledger::new(shared);
    bencher.bench_local(|| {
        ledger.begin();
        let answer = ledger.answer(&query).now_or_never().unwrap();
        assert_eq!(answer, Answer::Within);
        ledger.settle(Settlement::Commit);
    });
}

/// One decision that nothing came of.
#[divan::bench(sample_size = 200)]
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn one_record_in_the_metrics(bencher: Bencher<'_, '_>) {
    let policy = sample::policy("[[rule]]\nname = \"one\"\nwhen.sender = \"nobody@example.com\"\n".to_owned());
    let metrics = Metrics::new().unwrap();
    let series = metrics.adopt(&policy, "");
    let mut session = sample::session(&policy);
    let mut ledger = Ledger::new(Shared::new(policy.clone()));
    give(&mut session, &mut ledger, sample::connect(b"10.1.2.3"));
    let decision = give(&mut session, &mut ledger, sample::mail(b"<user@s1.example.org>")).unwrap();
    let now = Instant::now();
    bencher.bench_local(|| metrics.record(&series, &decision, now, Duration::from_micros(20)));
}
