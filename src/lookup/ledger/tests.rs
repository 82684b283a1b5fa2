use super::*;
use crate::config::Config;
use crate::config::Source;
use crate::policy::Policy;

const CONFIG: &str = r#"
        [[rule]]
        name = "limits"
        limit = { key = "login", messages = "2/hour", recipients = "3/hour", bytes = "1000 B/hour", concurrent = 1 }
    "#;

fn shared() -> Arc<Shared> {
    shared_of(CONFIG)
}

fn shared_of(text: &str) -> Arc<Shared> {
    let sources = vec![Source { path: "test.toml".into(), text: text.to_owned() }];
    let (config, mut diagnostics) = Config::read(sources);
    let policy = Policy::compile(&config, &mut diagnostics);
    Shared::new(Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}"))))
}

fn counter(shared: &Shared, measure: &str) -> usize {
    shared.policy.counters().iter().position(|counter| counter.measure.name() == measure).unwrap()
}

fn hold(ledger: &mut Ledger, measure: &str, amount: Amount, scope: Scope) -> bool {
    let counter = counter(&ledger.shared, measure);
    let hold = Hold { counter, row: 0, key: Key::from_slice(b"alice"), amount, scope };
    ledger.hold(&hold) == Answer::Within
}

fn message(ledger: &mut Ledger) -> bool {
    hold(ledger, "messages", Amount::Total(1), Scope::Message)
}

#[test]
fn what_is_not_accepted_costs_nothing() {
    let shared = shared();
    let mut ledger = Ledger::new(Arc::clone(&shared));
    for _ in 0..10 {
        assert!(message(&mut ledger));
        ledger.release();
    }
    drop(ledger);
    let mut lost = Ledger::new(Arc::clone(&shared));
    assert!(message(&mut lost));
    drop(lost);
    let mut ledger = Ledger::new(shared);
    for _ in 0..2 {
        assert!(message(&mut ledger));
        ledger.commit();
    }
    assert!(!message(&mut ledger), "two were accepted");
}

#[test]
fn one_message_is_one_message_however_often_it_is_judged() {
    let mut ledger = Ledger::new(shared());
    for _ in 0..5 {
        assert!(message(&mut ledger));
    }
    ledger.commit();
    assert!(message(&mut ledger));
}

#[test]
fn a_refused_recipient_is_given_back_and_the_others_stay() {
    let mut ledger = Ledger::new(shared());
    let recipient = |ledger: &mut Ledger| {
        ledger.mark();
        hold(ledger, "recipients", Amount::Add(1), Scope::Message)
    };
    assert!(recipient(&mut ledger));
    for _ in 0..5 {
        assert!(recipient(&mut ledger));
        ledger.roll_back();
    }
    assert!(recipient(&mut ledger) && recipient(&mut ledger));
    assert!(!recipient(&mut ledger), "three are held");
}

#[test]
fn what_was_declared_is_corrected_by_what_came() {
    let shared = shared();
    let (mut ledger, mut other) = (Ledger::new(Arc::clone(&shared)), Ledger::new(shared));
    let size = |ledger: &mut Ledger, octets| hold(ledger, "bytes", Amount::Total(octets), Scope::Message);
    assert!(size(&mut ledger, 900) && !size(&mut other, 200));
    assert!(size(&mut ledger, 100) && size(&mut other, 200), "the rest is free again");
    ledger.commit();
    assert!(size(&mut other, 900) && !size(&mut other, 901));
}

#[test]
fn a_connection_holds_its_place_until_it_ends() {
    let shared = shared();
    let (mut first, mut second) = (Ledger::new(Arc::clone(&shared)), Ledger::new(shared));
    let connect = |ledger: &mut Ledger| hold(ledger, "concurrent", Amount::Add(1), Scope::Connection);
    assert!(connect(&mut first));
    first.release();
    assert!(!connect(&mut second), "a message that ends does not end the connection");
    drop(first);
    assert!(connect(&mut second));
}

#[test]
fn a_connection_holds_a_bounded_number_of_places() {
    let shared = shared();
    let (mut greedy, mut other) = (Ledger::new(Arc::clone(&shared)), Ledger::new(Arc::clone(&shared)));
    let connect = |ledger: &mut Ledger, name: usize| {
        let key = Key::from_slice(&name.to_be_bytes());
        let (counter, amount) = (counter(&ledger.shared, "concurrent"), Amount::Add(1));
        ledger.hold(&Hold { counter, row: 0, key, amount, scope: Scope::Connection }) == Answer::Within
    };
    for name in 0..=MAX_SESSION_KEYS {
        assert!(connect(&mut greedy, name));
    }
    assert_eq!(greedy.connection.len(), MAX_SESSION_KEYS);
    assert!(connect(&mut greedy, 1), "its own place again");
    assert!(connect(&mut other, 0), "the oldest place is free");
    assert!(!connect(&mut other, 1));
    drop(greedy);
    assert!(connect(&mut other, 1));
}

/// Were each recipient compared with all others, this would take very long.
#[test]
fn many_recipients_take_no_more_than_their_share() {
    let mut ledger = Ledger::new(shared());
    let counter = counter(&ledger.shared, "bytes");
    for total in [900, 100] {
        for name in 0_u32..20_000 {
            let (key, amount) = (Key::from_slice(&name.to_be_bytes()), Amount::Total(total));
            ledger.mark();
            assert_eq!(ledger.hold(&Hold { counter, row: 0, key, amount, scope: Scope::Message }), Answer::Within);
        }
    }
    assert!(ledger.message.as_ref().unwrap().amounts.values().all(|&amount| amount == 100));
    ledger.release();
}

const OWN: &str = r#"
        [lists.own.limits]
        big = "unlimited"
        none = 0
        [[rule]]
        name = "limits"
        limit = { key = "login", messages = "2/hour", overrides = "@own" }
        [[rule]]
        name = "shut-out"
        limit = { key = "login", messages = "2/hour", block_for = "2h" }
        [[rule]]
        name = "tries"
        limit = { key = "login", messages = "2/hour", recipients = "9/hour", charge = "attempts" }
        [[rule]]
        name = "refusals"
        limit = { key = "login", messages = "2/hour", charge = "refused" }
        [[rule]]
        name = "volume"
        limit = { key = "login", bytes = "1000 B/hour", charge = "refused" }
    "#;

fn own() -> Arc<Shared> {
    let sources = vec![Source { path: "test.toml".into(), text: OWN.to_owned() }];
    let (config, mut diagnostics) = Config::read(sources);
    let policy = Policy::compile(&config, &mut diagnostics);
    Shared::new(Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}"))))
}

fn ask(ledger: &mut Ledger, rule: &str, row: usize, scope: Scope) -> Answer {
    let counter = ledger.shared.policy.counters().iter().position(|counter| counter.rule == rule).unwrap();
    ledger.mark();
    ledger.hold(&Hold { counter, row, key: Key::from_slice(b"alice"), amount: Amount::Total(1), scope })
}

#[test]
fn an_override_frees_or_forbids() {
    let shared = own();
    for _ in 0..10 {
        let mut ledger = Ledger::new(Arc::clone(&shared));
        assert_eq!(ask(&mut ledger, "limits", 1, Scope::Message), Answer::Within);
        ledger.commit();
    }
    let mut ledger = Ledger::new(shared);
    let Answer::Exceeded(exceeded) = ask(&mut ledger, "limits", 2, Scope::Message) else { panic!("0 is nothing") };
    let counter = &ledger.shared.policy.counters()[0];
    assert_eq!((exceeded.row, counter.bound(&exceeded).as_str()), (2, "nothing at all"));
}

#[test]
fn who_is_over_the_limit_is_shut_out_for_as_long_as_it_says() {
    let shared = own();
    let mut ledger = Ledger::new(Arc::clone(&shared));
    for _ in 0..2 {
        assert_eq!(ask(&mut ledger, "shut-out", 0, Scope::Message), Answer::Within);
        ledger.commit();
    }
    let two_hours = Duration::from_secs(7200);
    for _ in 0..2 {
        let Answer::Exceeded(exceeded) = ask(&mut ledger, "shut-out", 0, Scope::Message) else { panic!("two are all") };
        let retry_after = exceeded.retry_after.unwrap();
        assert!(retry_after <= two_hours && retry_after > two_hours - Duration::from_secs(60), "{retry_after:?}");
    }
}

#[test]
fn a_try_counts_whatever_became_of_it() {
    let shared = own();
    let mut ledger = Ledger::new(Arc::clone(&shared));
    assert_eq!(ask(&mut ledger, "tries", 0, Scope::Attempt), Answer::Within);
    ledger.roll_back();
    assert_eq!(ask(&mut ledger, "tries", 0, Scope::Attempt), Answer::Within, "the same message is the same try");
    ledger.release();
    assert_eq!(ask(&mut ledger, "tries", 0, Scope::Attempt), Answer::Within);
    drop(ledger);
    let mut ledger = Ledger::new(shared);
    assert!(matches!(ask(&mut ledger, "tries", 0, Scope::Attempt), Answer::Exceeded(_)));
}

#[test]
fn where_refusals_are_charged_what_is_accepted_costs_nothing() {
    let shared = own();
    let mut ledger = Ledger::new(Arc::clone(&shared));
    for _ in 0..5 {
        assert_eq!(ask(&mut ledger, "refusals", 0, Scope::Refused), Answer::Within);
        ledger.commit();
    }
    for _ in 0..2 {
        assert_eq!(ask(&mut ledger, "refusals", 0, Scope::Refused), Answer::Within);
        assert_eq!(ask(&mut ledger, "refusals", 0, Scope::Refused), Answer::Within, "judged again");
        ledger.release();
    }
    assert!(matches!(ask(&mut ledger, "refusals", 0, Scope::Refused), Answer::Exceeded(_)));
}

/// `SIZE=1` must not be all that a refused message costs.
#[test]
fn a_refused_message_is_charged_its_true_size() {
    let shared = own();
    let mut ledger = Ledger::new(Arc::clone(&shared));
    let volume = |ledger: &mut Ledger, octets| {
        let counter = ledger.shared.policy.counters().iter().position(|counter| counter.rule == "volume").unwrap();
        let (key, amount) = (Key::from_slice(b"alice"), Amount::Total(octets));
        ledger.hold(&Hold { counter, row: 0, key, amount, scope: Scope::Refused })
    };
    assert_eq!(volume(&mut ledger, 1), Answer::Within);
    assert_eq!(volume(&mut ledger, 900), Answer::Within);
    ledger.release();
    assert!(matches!(volume(&mut ledger, 200), Answer::Exceeded(_)));
    assert_eq!(volume(&mut ledger, 100), Answer::Within);
}

const DICTIONARY: &str = r#"
        [[rule]]
        name = "dictionary"
        limit = { key = "client", bad_recipients = "50% of 4/hour" }
    "#;

/// One RCPT: whether it was tried, and then what became of it.
fn tries(ledger: &mut Ledger, amount: Amount, is_refused: bool) -> Answer {
    let key = Key::from_slice(b"client");
    ledger.mark();
    let answer = ledger.hold(&Hold { counter: 0, row: 0, key, amount, scope: Scope::Message });
    if is_refused {
        ledger.roll_back()
    } else {
        ledger.keep()
    }
    answer
}

#[test]
fn a_recipient_that_is_tried_is_charged_when_it_is_settled() {
    let sources = vec![Source { path: "test.toml".into(), text: DICTIONARY.to_owned() }];
    let (config, mut diagnostics) = Config::read(sources);
    let policy = Policy::compile(&config, &mut diagnostics).unwrap_or_else(|| panic!("{diagnostics}"));
    let mut ledger = Ledger::new(Shared::new(Arc::new(policy)));
    for is_refused in [true, true, false] {
        assert_eq!(tries(&mut ledger, Amount::Try, is_refused), Answer::Within);
        assert_eq!(tries(&mut ledger, Amount::Nothing, true), Answer::Within, "nobody was tried");
    }
    ledger.release();
    assert_eq!(tries(&mut ledger, Amount::Try, true), Answer::Within, "three are too few");
    let Answer::Exceeded(exceeded) = tries(&mut ledger, Amount::Try, false) else { panic!("three of four") };
    assert_eq!((exceeded.bound, exceeded.used), (Bound::Share(0), 75));
    let Answer::Exceeded(exceeded) = tries(&mut ledger, Amount::Nothing, false) else { panic!("it was not tried") };
    assert_eq!(ledger.shared.policy.counters()[0].bound(&exceeded), "50% bad recipients/hour");
}

/// Messages of alice one after the other, each committed if it passes: the step of each, `None` for within.
fn in_steps(limit: &str, messages: usize) -> Vec<Option<usize>> {
    let shared = shared_of(&format!("[[rule]]\nname = \"r\"\nlimit = {{ key = \"login\", {limit} }}\n"));
    let levels = shared.policy.counters()[0].levels.clone();
    let scope = if limit.contains("attempts") { Scope::Attempt } else { Scope::Message };
    let mut ledger = Ledger::new(Arc::clone(&shared));
    let one = |_| {
        let key = Key::from_slice(b"alice");
        let hold = Hold { counter: 0, row: 0, key, amount: Amount::Total(1), scope };
        let step = match ledger.hold(&hold) {
            Answer::Exceeded(exceeded) => Some(exceeded.step),
            Answer::Within | Answer::Bytes(_) | Answer::Failed => None,
        };
        if step.is_none_or(|step| levels.passes(step)) {
            ledger.commit()
        } else {
            ledger.release()
        }
        step
    };
    (0..messages).map(one).collect()
}

#[test]
fn what_passes_above_a_step_is_charged_and_what_does_not_is_not() {
    let steps =
        "messages = \"2/hour\", steps = { \"100%\" = \"monitor\", \"150%\" = \"quarantine\", \"200%\" = \"defer\" }";
    let (monitor, quarantine, defer) = (Some(0), Some(1), Some(2));
    assert_eq!(in_steps(steps, 7), [None, None, monitor, quarantine, defer, defer, defer]);
}

#[test]
fn where_tries_count_those_that_are_deferred_do_up_to_the_highest_step() {
    let steps = "messages = \"2/hour\", charge = \"attempts\", steps = { \"100%\" = \"defer\", \"200%\" = \"refuse\" }";
    assert_eq!(in_steps(steps, 6), [None, None, Some(0), Some(0), Some(1), Some(1)]);
}

#[test]
fn where_all_steps_let_pass_counting_ends_at_the_highest() {
    let steps = "messages = \"2/hour\", steps = { \"50%\" = \"monitor\", \"100%\" = \"quarantine\" }";
    assert_eq!(in_steps(steps, 5), [None, Some(0), Some(1), Some(1), Some(1)]);
    let shared =
        shared_of("[[rule]]\nname = \"r\"\nlimit = { messages = \"2/hour\", steps = { \"100%\" = \"monitor\" } }\n");
    let mut ledger = Ledger::new(Arc::clone(&shared));
    for _ in 0..9 {
        let hold = Hold { counter: 0, row: 0, key: Key::new(), amount: Amount::Total(1), scope: Scope::Message };
        ledger.hold(&hold);
        ledger.commit();
    }
    assert_eq!(shared.show_limit(0, &[]).unwrap().charged, 2);
}

#[test]
fn a_block_begins_with_the_first_step_that_lets_nothing_through() {
    let steps = "messages = \"1/hour\", block_for = \"1h\", steps = { \"100%\" = \"monitor\", \"200%\" = \"defer\" }";
    let shared = shared_of(&format!("[[rule]]\nname = \"r\"\nlimit = {{ {steps} }}\n"));
    let mut ledger = Ledger::new(Arc::clone(&shared));
    let hold = Hold { counter: 0, row: 0, key: Key::new(), amount: Amount::Total(1), scope: Scope::Message };
    let mut bounds = Vec::new();
    for _ in 0..4 {
        let answer = ledger.hold(&hold);
        if let Answer::Exceeded(exceeded) = answer {
            bounds.push((exceeded.step, exceeded.bound));
            if exceeded.step == 1 {
                continue;
            }
        }
        ledger.commit();
    }
    assert_eq!(bounds, [(0, Bound::Rate(0)), (1, Bound::Rate(0)), (1, Bound::Block)]);
}

/// The first recipient of a domain was deferred, and its try is held: the second one finds it there.
#[test]
fn a_try_that_is_held_still_says_which_step_it_is_at() {
    let steps = "messages = \"1/hour\", charge = \"attempts\", steps = { \"100%\" = \"defer\", \"300%\" = \"refuse\" }";
    let shared = shared_of(&format!("[[rule]]\nname = \"r\"\nlimit = {{ key = \"recipient_domain\", {steps} }}\n"));
    let mut ledger = Ledger::new(shared);
    let key = Key::from_slice(b"b.example");
    let hold = Hold { counter: 0, row: 0, key, amount: Amount::Total(1), scope: Scope::Attempt };
    assert_eq!(ledger.hold(&hold), Answer::Within);
    ledger.commit();
    for _ in 0..3 {
        ledger.mark();
        assert!(matches!(ledger.hold(&hold), Answer::Exceeded(Exceeded { step: 0, .. })));
        ledger.roll_back();
    }
}
