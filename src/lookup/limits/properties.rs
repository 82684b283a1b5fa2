//! Random histories, judged by the oracle, and what holds whoever has to be forgotten. `PROPTEST_CASES` says how many.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::Just;
use proptest::prelude::Strategy;
use proptest::prelude::any;
use proptest::prelude::prop_assert;
use proptest::prelude::prop_assert_eq;
use proptest::prop_oneof;
use proptest::proptest;

use super::Counter;
use super::Counters;
use super::Counts;
use super::Exceeded;
use super::Row;
use super::Steps;
use super::bounds::nanos;
use super::oracle::Event;
use super::oracle::ROWS;
use super::oracle::Trial;
use super::oracle::check_orders;
use super::oracle::fit;
use super::tests::at;
use super::tests::rate;
use super::tests::rates;
use super::tests::send;
use crate::config::Rate;
use crate::config::Share;

fn row(unit: u64) -> impl Strategy<Value = Row> {
    let rate = (0..9u64, 1..13u64).prop_map(move |(amount, per)| rate(amount * unit, per));
    let concurrent = option::weighted(0.3, (0..5u64).prop_map(move |bound| bound * unit));
    let share = (0..100u64, 1..5u64, 1..13u64);
    let share = share.prop_map(|(percent, least, per)| Share { percent, least, per: at(per) });
    let row = (vec(rate, 0..4), vec(share, 0..3), concurrent, steps());
    row.prop_map(|(rates, shares, concurrent, steps)| Row { rates, shares, concurrent, steps, ..Row::default() })
}

/// Usually none; else some that let pass, then some that do not, above one of which nothing is counted any more.
fn steps() -> impl Strategy<Value = Steps> {
    let percents = vec(prop_oneof![Just(100), 1..400u32], 1..4);
    let some = (percents, any::<usize>(), any::<bool>()).prop_map(|(mut percents, blocking, counts_on)| {
        percents.sort_unstable();
        percents.dedup();
        let (last, blocking) = (percents.len() - 1, blocking % (percents.len() + 1));
        let ceiling = if counts_on { last } else { blocking.min(last) };
        Steps { percents: percents.into(), blocking, ceiling }
    });
    prop_oneof![2 => Just(Steps::default()), 1 => some]
}

fn counter(unit: u64) -> impl Strategy<Value = Counter> {
    let counts = prop_oneof![Just(Counts::Amounts), Just(Counts::Tries), Just(Counts::Values)];
    (vec(row(unit), ROWS), counts).prop_map(|(mut rows, counts)| {
        rows.iter_mut().for_each(|row| fit(row, counts));
        Counter { rows, max_keys: usize::MAX, counts }
    })
}

fn unit() -> impl Strategy<Value = u64> {
    weighted(0.2).prop_map(|is_large| if is_large { 1 << 33 } else { 1 })
}

fn counters() -> impl Strategy<Value = (Vec<Counter>, u64)> {
    unit().prop_flat_map(|unit| (vec(counter(unit), COUNTERS), Just(unit)))
}

/// All with a window of the same length, however they are changed: what leaves the longest may be forgotten, and what was
/// forgotten does not come back when windows grow.
fn alike(unit: u64) -> impl Strategy<Value = Vec<Counter>> {
    let alike = |mut counter: Counter| {
        counter.rows[0].rates.push(rate(u64::MAX, LONGEST));
        counter.rows[1].whose = Some("some".into());
        counter
    };
    vec(counter(unit).prop_map(alike), COUNTERS)
}

fn reloads(unit: u64) -> impl Strategy<Value = Vec<Event>> {
    let reload = alike(unit).prop_map(|counters| Event::Reload { counters });
    vec(prop_oneof![12 => event(), 1 => reload], 1..EVENTS)
}

fn event() -> impl Strategy<Value = Event> {
    let back = || prop_oneof![9 => Just(0), 1 => 1..20u64];
    let hold = (any::<usize>(), 0..COUNTERS, 0..ROWS, 0..KEYS, 0..4u64, back());
    let key = || (0..COUNTERS, 0..KEYS);
    prop_oneof![
        24 => hold.prop_map(|(policy, counter, row, key, amount, back)| {
            Event::Hold { policy, counter, row, key, amount, back }
        }),
        16 => (any::<usize>(), back()).prop_map(|(which, back)| Event::Commit { which, back }),
        4 => any::<usize>().prop_map(|which| Event::Release { which }),
        12 => (0..5u64).prop_map(|by| Event::Advance { by }),
        1 => (0..50u64).prop_map(|by| Event::Advance { by: by * by * by * by }), // a suspended machine
        8 => any::<bool>().prop_map(|early| Event::Retry { early }),
        2 => (key(), 0..20u64).prop_map(|((counter, key), length)| Event::Block { counter, key, length }),
        1 => key().prop_map(|(counter, key)| Event::Unblock { counter, key }),
        1 => key().prop_map(|(counter, key)| Event::Reset { counter, key }),
        1 => prop_oneof![Just(0), 0..900u64].prop_map(|start| Event::Carry { start }),
    ]
}

proptest! {
    #[test]
    fn any_history_is_judged_as_the_oracle_does((counters, unit) in counters(), events in vec(event(), 1..EVENTS)) {
        let mut trial = Trial::new(counters, unit);
        for event in &events {
            trial.play(event)?;
        }
        trial.finish()?;
    }

    /// Sessions of several policies, each judged by its own, over the same counts.
    #[test]
    fn policies_that_follow_one_another_count_together(
        (counters, unit, events) in unit().prop_flat_map(|unit| (alike(unit), Just(unit), reloads(unit)))
    ) {
        let mut trial = Trial::new(counters, unit);
        for event in &events {
            trial.play(event)?;
        }
        trial.finish()?;
    }

    #[test]
    fn eviction_never_forgets_what_is_held(calls in vec((0..2usize, 0..8u8, 0..3u8, 0..4u64), 1..80)) {
        let counters = Counters::of(&[rates(&[rate(1, 5)]), rates(&[rate(1, 50)])], 3);
        let mut held = BTreeSet::new();
        let (mut now, mut most_held) = (0, 0);
        for (counter, key, call, wait) in calls {
            now += wait;
            let was_held = held.contains(&(counter, key));
            match call {
                0 if was_held => counters.commit(at(now), counter, &[key], 1),
                1 if was_held => counters.release(counter, &[key], 1),
                _ => match counters.hold(at(now), counter, 0, &[key], 1) {
                    Ok(()) => {
                        prop_assert!(!was_held);
                        held.insert((counter, key));
                        most_held = most_held.max(held.len());
                        continue;
                    }
                    Err(_) => continue,
                },
            }
            held.remove(&(counter, key));
            prop_assert!(counters.keys() <= 3 + most_held);
        }
        check_orders(&counters);
    }

    /// As long as there is room for all that are pinned, only the others go.
    #[test]
    fn a_flood_of_new_keys_pushes_no_limited_one_out(calls in vec((0..6u8, 0..4u8, 0..3u64), 1..40)) {
        let counters = Counters::of(&[rates(&[rate(2, 40)])], 8);
        let (mut now, mut flood) = (0, 0u32);
        let mut pinned: BTreeMap<u8, u64> = BTreeMap::new();
        for (key, call, wait) in calls {
            now += wait;
            pinned.retain(|_, until| *until > now);
            match call {
                0 => {
                    counters.block(at(now), 0, &[key], at(now + 30));
                    let until = pinned.entry(key).or_default();
                    *until = (*until).max(now + 30);
                }
                1 | 2 => match send(&counters, now, &[key], 1) {
                    Err(Exceeded { retry_after: Some(wait), .. }) => {
                        let until = pinned.entry(key).or_default();
                        *until = (*until).max(now + nanos(wait));
                    }
                    admitted => {
                        prop_assert!(admitted.is_ok() && !pinned.contains_key(&key), "{} at {}", key, now);
                    }
                },
                _ => for _ in 0..4 {
                    flood += 1;
                    prop_assert!(send(&counters, now, &flood.to_be_bytes(), 1).is_ok());
                },
            }
            for (key, until) in &pinned {
                prop_assert!(counters.show(at(now), 0, &[*key]).is_some(), "{} until {}", key, until);
            }
            prop_assert!(counters.keys() <= 8);
        }
        check_orders(&counters);
    }

    #[test]
    fn the_time_to_retry_is_exact(
        charges in vec((0..50u64, 1..20u64), 1..40),
        limits in vec((20..60u64, 1..200u64), 1..4),
        amount in 1..60u64,
    ) {
        let limits: Vec<Rate> = limits.into_iter().map(|(amount, per)| rate(amount, per)).collect();
        let counters = Counters::of(&[rates(&limits)], 1000);
        let mut now = 0;
        for (wait, amount) in charges {
            now += wait;
            let _ = send(&counters, now, b"key", amount);
        }
        let Err(exceeded) = counters.hold(at(now), 0, 0, b"key", amount) else {
            return Ok(());
        };
        let Some(wait) = exceeded.retry_after else {
            prop_assert!(limits.iter().any(|rate| amount > rate.amount));
            return Ok(());
        };
        prop_assert!(counters.hold(at(now) + wait - at(1), 0, 0, b"key", amount).is_err());
        prop_assert_eq!(counters.hold(at(now) + wait, 0, 0, b"key", amount), Ok(()));
    }
}

const COUNTERS: usize = 2;
/// As long as the longest of other windows, or longer.
const LONGEST: u64 = 13;
/// The last of them changes its row with each call.
const KEYS: u8 = 3;
/// Short histories find as much, and are many more.
const EVENTS: usize = 60;
