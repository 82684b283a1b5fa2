//! Look-ups in lists, as part of CONNECT and MAIL of one message; that alone is `no_list`.

use std::fmt::Write as _;

use divan::Bencher;
use postward::lookup::Ledger;
use postward::lookup::Shared;

use crate::sample;
use crate::sample::give;

/// What the others cost without their list.
#[divan::bench(sample_size = 500)]
fn no_list(bencher: Bencher<'_, '_>) {
    measure(bencher, "[[rule]]\nname = \"one\"\nwhen.sender = \"nobody@example.com\"\n".to_owned());
}

#[divan::bench(sample_size = 500, args = ENTRIES)]
fn networks(bencher: Bencher<'_, '_>, entries: usize) {
    let network = |number: usize| {
        let [_, a, b, c] = u32::try_from(number * 13).unwrap().to_be_bytes();
        format!("{}.{b}.{c}.0/24", 11 + usize::from(a))
    };
    measure(bencher, list("client", "networks", entries, network));
}

#[divan::bench(sample_size = 500, args = ENTRIES)]
fn domains(bencher: Bencher<'_, '_>, entries: usize) {
    measure(bencher, list("sender", "domains", entries, |number| format!(".nothing{number}.example.com")));
}

#[divan::bench(sample_size = 500, args = ENTRIES)]
fn addresses(bencher: Bencher<'_, '_>, entries: usize) {
    measure(bencher, list("sender", "addresses", entries, |number| format!("nobody{number}@example.com")));
}

fn list(fact: &str, kind: &str, entries: usize, entry: impl Fn(usize) -> String) -> String {
    let mut text = format!("[[rule]]\nname = \"listed\"\nwhen.{fact} = \"@many\"\n\n[lists.many]\n{kind} = [\n");
    (0..entries).for_each(|number| {
        let _ = writeln!(text, "\"{}\",", entry(number));
    });
    text + "]\n"
}

/// Other clients and senders each time, so that the processor does not find all of it in its cache.
fn measure(bencher: Bencher<'_, '_>, text: String) {
    let policy = sample::policy(text);
    let shared = Shared::new(policy.clone());
    let mut number = 0_u32;
    let inputs = || {
        number = number.wrapping_add(2_654_435_761);
        let [a, b, c, _] = number.to_be_bytes();
        (format!("10.{a}.{b}.{c}"), format!("<user{number}@s{a}.example.org>"))
    };
    bencher.with_inputs(inputs).bench_local_refs(|(client, sender)| {
        let mut session = sample::session(&policy);
        let mut ledger = Ledger::new(shared.clone());
        give(&mut session, &mut ledger, sample::connect(client.as_bytes()));
        let decision = give(&mut session, &mut ledger, sample::mail(sender.as_bytes()));
        assert!(decision.is_some_and(|decision| decision.rule.is_none()));
    });
}

/// Tests see only that it works.
const ENTRIES: &[usize] = if cfg!(debug_assertions) { &[100] } else { &[100_000, 1_000_000] };
