//! What is admitted and refused, and when: the contract of hold, release and commit.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;

pub(super) const KEY: &[u8] = b"key";
pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn at(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

pub(super) fn rate(amount: u64, per: u64) -> Rate {
    Rate { amount, per: at(per) }
}

pub(super) fn row(rates: &[Rate]) -> Row {
    Row { rates: rates.to_vec(), ..Row::default() }
}

pub(super) fn rates(rates: &[Rate]) -> Counter {
    Counter { rows: vec![row(rates)], max_keys: usize::MAX, ..Counter::default() }
}

pub(super) fn concurrent(bound: u64) -> Counter {
    Counter {
        rows: vec![Row { concurrent: Some(bound), ..Row::default() }],
        max_keys: usize::MAX,
        ..Counter::default()
    }
}

pub(super) fn one(counter: Counter) -> Counters {
    Counters::of(&[counter], 1000)
}

pub(super) fn refused(
    rate: impl Into<Option<usize>>,
    used: u64,
    retry_after: impl Into<Option<u64>>,
) -> Result<(), Exceeded> {
    let by = rate.into().map_or(By::Concurrent, By::Rate);
    Err(Exceeded { by, step: 0, used, retry_after: retry_after.into().map(at) })
}

/// Holds and commits at once.
pub(super) fn send(counters: &Counters, now: u64, key: &[u8], amount: u64) -> Result<(), Exceeded> {
    counters.hold(at(now), 0, 0, key, amount)?;
    counters.commit(at(now), 0, key, amount);
    Ok(())
}

#[test]
fn a_charge_counts_until_its_window_has_passed() {
    let counters = one(rates(&[rate(2, 100)]));
    assert_eq!(send(&counters, 10, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 50, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 50, KEY, 1), refused(0, 2, 60));
    assert_eq!(send(&counters, 109, KEY, 1), refused(0, 2, 1));
    assert_eq!(send(&counters, 110, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 110, KEY, 1), refused(0, 2, 40));
}

#[test]
fn a_charge_is_dated_by_its_commit() {
    let counters = one(rates(&[rate(1, 100)]));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(500), 0, 0, KEY, 1), refused(0, 1, None));
    counters.commit(at(500), 0, KEY, 1);
    assert_eq!(counters.hold(at(599), 0, 0, KEY, 1), refused(0, 1, 1));
    assert_eq!(counters.hold(at(600), 0, 0, KEY, 1), Ok(()));
}

#[test]
fn what_is_given_back_is_free() {
    let counters = one(rates(&[rate(3, 100)]));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 3), Ok(()));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), refused(0, 3, None));
    counters.release(0, KEY, 2);
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 2), Ok(()));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), refused(0, 3, None));
    counters.release(0, KEY, 3);
    assert_eq!(counters.keys(), 0);
}

#[test]
fn a_refusal_reserves_nothing_under_any_rate() {
    let counters = one(rates(&[rate(10, 10), rate(3, 100)]));
    assert_eq!(send(&counters, 0, KEY, 2), Ok(()));
    assert_eq!(counters.hold(at(20), 0, 0, KEY, 2), refused(1, 2, 80));
    assert_eq!(counters.hold(at(20), 0, 0, KEY, 1), Ok(()));
}

#[test]
fn the_bound_that_takes_longest_is_named() {
    let both = Row { rates: vec![rate(2, 10), rate(2, 100), rate(2, 100)], concurrent: Some(1), ..Row::default() };
    let counters = one(Counter { rows: vec![both], max_keys: 1000, ..Counter::default() });
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(5), 0, 0, KEY, 1), refused(1, 2, 95));
    assert_eq!(counters.hold(at(5), 0, 0, KEY, 3), refused(0, 2, None));
    assert_eq!(counters.hold(at(100), 0, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(100), 0, 0, KEY, 1), refused(None, 1, None));
}

#[test]
fn more_than_the_bound_never_fits_and_nothing_always_does() {
    let counters = one(rates(&[rate(0, 100)]));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), refused(0, 0, None));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 0), Ok(()));
    counters.commit(at(0), 0, KEY, 0);
    assert_eq!(counters.keys(), 0);
}

#[test]
fn only_as_much_as_needed_has_to_leave() {
    let counters = one(rates(&[rate(10, 100)]));
    for (now, amount) in [(0, 3), (10, 3), (20, 4)] {
        assert_eq!(send(&counters, now, KEY, amount), Ok(()));
    }
    assert_eq!(counters.hold(at(30), 0, 0, KEY, 3), refused(0, 10, 70));
    assert_eq!(counters.hold(at(30), 0, 0, KEY, 4), refused(0, 10, 80));
    assert_eq!(counters.hold(at(30), 0, 0, KEY, 7), refused(0, 10, 90));
}

#[test]
fn concurrent_counts_what_is_held_and_keeps_no_charges() {
    let counters = one(concurrent(2));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(9), 0, 0, KEY, 1), refused(None, 2, None));
    counters.commit(at(9), 0, KEY, 1);
    assert_eq!(counters.hold(at(9), 0, 0, KEY, 1), Ok(()));
    counters.commit(at(9), 0, KEY, 1);
    counters.release(0, KEY, 1);
    assert_eq!(counters.keys(), 0);
}

#[test]
fn counters_and_keys_are_separate() {
    let counters = Counters::of(&[rates(&[rate(1, 100)]), rates(&[rate(1, 100)])], 1000);
    for (counter, key) in [(0, &b"a"[..]), (0, b"b"), (1, b"a"), (0, b"")] {
        assert_eq!(counters.hold(at(0), counter, 0, key, 1), Ok(()));
        assert_eq!(counters.hold(at(0), counter, 0, key, 1), refused(0, 1, None));
    }
    assert_eq!(counters.keys(), 4);
}

#[test]
fn time_that_goes_backwards_opens_nothing() {
    let counters = one(rates(&[rate(2, 100)]));
    assert_eq!(send(&counters, 1000, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 0, KEY, 1), Ok(())); // dated 1000
    assert_eq!(send(&counters, 0, KEY, 1), refused(0, 2, 1100));
    assert_eq!(send(&counters, 1099, KEY, 1), refused(0, 2, 1));
    assert_eq!(send(&counters, 1100, KEY, 2), Ok(()));
}

/// Were the time that a key has seen forgotten with the key, its old window could be entered a second time.
#[test]
fn a_forgotten_key_does_not_come_back_in_the_past() {
    let counters = one(rates(&[rate(1, 100)]));
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 500, b"other", 1), Ok(()));
    assert_eq!(counters.keys(), 1);
    assert_eq!(send(&counters, 50, KEY, 1), Ok(())); // dated 500
    assert_eq!(send(&counters, 599, KEY, 1), refused(0, 1, 1));
}

#[test]
fn extremes_neither_overflow_nor_open() {
    let most = Row { rates: vec![rate(u64::MAX, 100)], concurrent: Some(u64::MAX), ..Row::default() };
    let counters = one(Counter { rows: vec![most], max_keys: 1000, ..Counter::default() });
    assert_eq!(counters.hold(at(0), 0, 0, KEY, u64::MAX), Ok(()));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), refused(0, u64::MAX, None));
    counters.commit(at(0), 0, KEY, u64::MAX);
    assert_eq!(counters.hold(at(99), 0, 0, KEY, 1), refused(0, u64::MAX, 1));
    counters.commit(at(50), 0, KEY, u64::MAX); // never held
    counters.release(0, KEY, u64::MAX);
    assert_eq!(counters.hold(at(99), 0, 0, KEY, u64::MAX), refused(0, u64::MAX, 1));
    assert_eq!(counters.hold(Duration::MAX, 0, 0, KEY, u64::MAX), Ok(()));
    counters.commit(Duration::MAX, 0, KEY, u64::MAX);
    assert!(counters.hold(Duration::MAX, 0, 0, KEY, 1).is_err());
}

/// Running totals wrap around after 2^64 bytes.
#[test]
fn a_long_life_does_not_wear_a_counter_out() {
    let counters = one(rates(&[rate(u64::MAX / 2, 10), rate(u64::MAX - 1, 20)]));
    for round in 0..100 {
        assert_eq!(send(&counters, round * 10, KEY, u64::MAX / 2), Ok(()));
        assert_eq!(send(&counters, round * 10, KEY, 1), refused(0, u64::MAX / 2, 10));
    }
}

#[test]
fn a_window_without_length_is_the_present_moment() {
    let counters = one(rates(&[rate(1, 0)]));
    assert_eq!(send(&counters, 5, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 5, KEY, 1), refused(0, 1, 1));
    assert_eq!(send(&counters, 6, KEY, 1), Ok(()));
}

/// 98 in any hour, evenly, for ten days.
#[test]
fn a_steady_sender_at_98_percent_is_never_refused() {
    let hour = Duration::from_secs(3600);
    let counters = one(rates(&[Rate { amount: 100, per: hour }]));
    for index in 0..98 * 240 {
        let now = hour * index / 98;
        assert_eq!(counters.hold(now, 0, 0, KEY, 1), Ok(()));
        counters.commit(now + Duration::from_secs(30), 0, KEY, 1);
    }
}

/// All 98 at the same moment of each hour, or in two halves.
#[test]
fn a_bursty_sender_at_98_percent_is_never_refused() {
    let hour = Duration::from_secs(3600);
    for bursts in [1, 2, 7, 49] {
        let counters = one(rates(&[Rate { amount: 100, per: hour }, Rate { amount: 2400, per: hour * 24 }]));
        for index in 0..bursts * 240 {
            let now = hour * index / bursts;
            (0..98 / bursts).for_each(|_| assert_eq!(counters.hold(now, 0, 0, KEY, 1), Ok(())));
            (0..98 / bursts).for_each(|_| counters.commit(now, 0, KEY, 1));
        }
    }
}

#[test]
fn of_two_threads_one_gets_the_last_place() {
    let rounds = 20_000;
    let counters = one(Counter {
        rows: vec![Row { rates: vec![rate(1, 100)], concurrent: Some(1), ..Row::default() }],
        max_keys: 1000,
        ..Counter::default()
    });
    let (barrier, admitted) = (Barrier::new(2), AtomicU64::new(0));
    let race = || {
        for round in 0..rounds {
            barrier.wait();
            if send(&counters, round * 100, KEY, 1).is_ok() {
                admitted.fetch_add(1, Ordering::Relaxed);
            }
            barrier.wait();
            assert_eq!(admitted.load(Ordering::Relaxed), round + 1);
        }
    };
    thread::scope(|scope| [scope.spawn(race), scope.spawn(race)].map(|thread| thread.join().unwrap()));
}

#[test]
fn threads_together_get_exactly_the_amount() {
    let counters = Counters::of(&[rates(&[rate(1000, 1_000_000)])], 1_000_000);
    let admitted = AtomicU64::new(0);
    let send_many = || {
        for now in 0..8000u64 {
            let key = [u8::try_from(now % 16).unwrap()];
            if counters.hold(at(now), 0, 0, &key, 1).is_err() {
                continue;
            }
            if now % 3 == 0 {
                counters.release(0, &key, 1);
            } else {
                counters.commit(at(now), 0, &key, 1);
                admitted.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(send_many))));
    assert_eq!(admitted.load(Ordering::Relaxed), 16_000);
}

#[test]
fn a_panic_under_the_lock_is_survived() {
    let counters = one(rates(&[rate(1, 100)]));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = counters.shards[0].lock();
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && counters.shards[0].is_poisoned());
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    assert_eq!(counters.keys(), 1);
}

#[test]
fn each_row_has_bounds_of_its_own() {
    let rows = vec![row(&[rate(1, 100)]), row(&[rate(3, 50), rate(4, 1000)]), row(&[rate(0, 10)]), Row::default()];
    let counters = one(Counter { rows, max_keys: 1000, ..Counter::default() });
    let hold = |now: u64, row: usize, key: &[u8]| {
        counters.hold(at(now), 0, row, key, 1)?;
        counters.commit(at(now), 0, key, 1);
        Ok(())
    };
    assert_eq!(hold(0, 0, b"default"), Ok(()));
    assert_eq!(hold(0, 0, b"default"), refused(0, 1, 100));
    assert_eq!(hold(0, 9, b"default"), refused(0, 1, 100), "a row that does not exist");
    (0..3).for_each(|_| assert_eq!(hold(0, 1, b"larger"), Ok(())));
    assert_eq!(hold(0, 1, b"larger"), refused(0, 3, 50));
    assert_eq!(hold(0, 2, b"forbidden"), refused(0, 0, None));
    (0..2000).for_each(|now| assert_eq!(hold(now, 3, b"unlimited"), Ok(())));
    assert_eq!(counters.show(at(1999), 0, b"unlimited").map(|view| view.charged), Some(1000));
    assert_eq!(hold(1999, 1, b"unlimited"), refused(1, 1000, 997), "what it did without limits counts");
}

/// Charges are kept for the longest window of any row, so that a key can change its row.
#[test]
fn a_key_that_changes_its_row_is_judged_by_all_it_did() {
    let rows = vec![row(&[rate(5, 10)]), row(&[rate(6, 1000)])];
    let counters = one(Counter { rows, max_keys: 1000, ..Counter::default() });
    for now in [0, 20] {
        (0..3).for_each(|_| assert_eq!(send(&counters, now, KEY, 1), Ok(())));
    }
    assert_eq!(counters.hold(at(50), 0, 1, KEY, 1), refused(0, 6, 950));
    assert_eq!(counters.hold(at(50), 0, 0, KEY, 1), Ok(()));
}

/// Nothing refuses what it does, so that its log would have no end.
#[test]
fn a_key_without_limits_takes_bounded_memory() {
    let counters =
        one(Counter { rows: vec![row(&[rate(1, 100_000)]), Row::default()], max_keys: 1000, ..Counter::default() });
    for now in 0..50_000 {
        assert_eq!(counters.hold(at(now), 0, 1, KEY, 1), Ok(()));
        counters.commit(at(now), 0, KEY, 1);
    }
    let records = counters.export(at(50_000), &mut Cursor::default(), 10);
    assert!(records[0].charges.len() <= 1025, "{}", records[0].charges.len());
    assert_eq!(records[0].charges.iter().map(|(_, amount)| amount).sum::<u64>(), 50_000);
}

#[test]
fn while_a_key_is_blocked_nothing_is_counted() {
    let counters = one(rates(&[rate(2, 1000)]));
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    counters.block(at(10), 0, KEY, at(60));
    let blocked = |age, left| {
        let (by, left) = (By::Block(Block { age: at(age), left: at(left) }), at(left));
        Err(Exceeded { by, step: 0, used: 0, retry_after: Some(left) })
    };
    assert_eq!(counters.hold(at(10), 0, 0, KEY, 1), blocked(0, 50));
    assert_eq!(counters.hold(at(59), 0, 0, KEY, 9), blocked(49, 1));
    assert_eq!(counters.hold(at(59), 0, 0, KEY, 0), Ok(()), "nothing always fits");
    assert_eq!(counters.hold(at(59), 0, 0, b"other", 1), Ok(()));
    assert_eq!(send(&counters, 60, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 60, KEY, 1), refused(0, 2, 940));
}

#[test]
fn blocks_that_overlap_are_one_until_it_is_ended() {
    let counters = one(concurrent(1));
    counters.block(at(10), 0, KEY, at(60));
    counters.block(at(20), 0, KEY, at(40));
    counters.block(at(30), 0, KEY, at(90));
    counters.block(at(30), 0, KEY, at(30));
    let by = By::Block(Block { age: at(60), left: at(20) });
    assert_eq!(counters.hold(at(70), 0, 0, KEY, 1), Err(Exceeded { by, step: 0, used: 0, retry_after: Some(at(20)) }));
    assert!(counters.unblock(at(71), 0, KEY) && !counters.unblock(at(71), 0, KEY));
    assert_eq!(counters.keys(), 0);
    assert_eq!(counters.hold(at(71), 0, 0, KEY, 1), Ok(()));
}

/// It was reserved before the block, and the mail it was reserved for is sent.
#[test]
fn what_was_held_before_a_block_is_charged() {
    let counters = one(rates(&[rate(2, 1000)]));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 2), Ok(()));
    counters.block(at(1), 0, KEY, at(10));
    counters.commit(at(2), 0, KEY, 2);
    assert_eq!(counters.hold(at(10), 0, 0, KEY, 1), refused(0, 2, 992));
}

#[test]
fn a_reset_forgets_charges_and_nothing_else() {
    let counters = one(rates(&[rate(2, 1000)]));
    assert_eq!(send(&counters, 0, KEY, 1), Ok(()));
    assert_eq!(counters.hold(at(0), 0, 0, KEY, 1), Ok(()));
    assert!(counters.reset(at(1), 0, KEY) && !counters.reset(at(1), 0, KEY));
    assert_eq!(send(&counters, 1, KEY, 1), Ok(()));
    assert_eq!(send(&counters, 1, KEY, 1), refused(0, 2, 1000));
    counters.release(0, KEY, 1);
    counters.block(at(1), 0, KEY, at(9));
    assert!(counters.reset(at(1), 0, KEY));
    assert!(counters.hold(at(8), 0, 0, KEY, 1).is_err());
    assert_eq!(send(&counters, 9, KEY, 2), Ok(()));
}

/// Those who are refused may be strangers, who is blocked is somebody's decision.
#[test]
fn a_flood_of_keys_that_are_refused_drives_out_no_block() {
    let counters = Counters::of(&[Counter { max_keys: 3, ..rates(&[rate(1, 1000)]) }], 1000);
    counters.block(at(0), 0, KEY, at(900));
    for flood in 0..50_u64 {
        let key = flood.to_be_bytes();
        counters.hold(at(flood), 0, 0, &key, 1).unwrap();
        counters.commit(at(flood), 0, &key, 1);
        assert!(counters.hold(at(flood), 0, 0, &key, 1).is_err());
    }
    assert_eq!(counters.keys(), 3);
    assert!(matches!(counters.hold(at(60), 0, 0, KEY, 1), Err(Exceeded { by: By::Block(_), .. })));
}

// Steps

/// 100%, 150% and 200% of 4, the last of which lets nothing through.
fn in_steps(ceiling: usize) -> Counters {
    let steps = Steps { percents: [100, 150, 200].into(), blocking: 2, ceiling };
    let row = Row { rates: vec![rate(4, 1000)], steps, ..Row::default() };
    one(Counter { rows: vec![row], max_keys: usize::MAX, ..Counter::default() })
}

/// The step, and whether it was reserved.
fn step(verdict: &Result<Option<Exceeded>, Exceeded>) -> Option<(usize, bool)> {
    match verdict {
        Ok(None) => None,
        Ok(Some(exceeded)) => Some((exceeded.step, true)),
        Err(exceeded) => Some((exceeded.step, false)),
    }
}

#[test]
fn what_is_above_a_step_is_counted_until_one_lets_nothing_through() {
    let counters = in_steps(2);
    let mut seen = Vec::new();
    for now in 0..10 {
        let verdict = counters.hold_in_steps(at(now), 0, 0, KEY, 1);
        if verdict.is_ok() {
            counters.commit(at(now), 0, KEY, 1);
        }
        seen.push(step(&verdict));
    }
    let (passes, held, refused) = (Some((0, true)), Some((1, true)), Some((2, false)));
    assert_eq!(seen, [None, None, None, None, passes, passes, held, held, refused, refused]);
    assert_eq!(counters.show(at(10), 0, KEY).unwrap().used, [8]);
    // Room at the step that lets nothing through comes first, room below the lowest one last.
    let refusal = |now| counters.hold_in_steps(at(now), 0, 0, KEY, 1).unwrap_err();
    assert_eq!((refusal(10).used, refusal(10).retry_after), (8, Some(at(990))));
    assert_eq!(step(&counters.hold_in_steps(at(1000), 0, 0, KEY, 1)), Some((1, true)));
    counters.release(0, KEY, 1);
    assert_eq!(step(&counters.hold_in_steps(at(1003), 0, 0, KEY, 1)), Some((0, true)));
    counters.release(0, KEY, 1);
    assert_eq!(step(&counters.hold_in_steps(at(1005), 0, 0, KEY, 1)), None);
}

#[test]
fn one_large_amount_passes_several_steps_at_once() {
    let verdict = |ceiling, amount| step(&in_steps(ceiling).hold_in_steps(at(0), 0, 0, KEY, amount));
    assert_eq!(
        [4, 5, 7, 9].map(|amount| verdict(2, amount)),
        [None, Some((0, true)), Some((1, true)), Some((2, false))]
    );
}

/// As many as there were, be they reserved only: nothing more is asked for.
#[test]
fn asking_for_nothing_tells_the_step() {
    let counters = in_steps(2);
    let nothing = |now| step(&counters.hold_in_steps(at(now), 0, 0, KEY, 0));
    assert_eq!((nothing(0), counters.keys()), (None, 0));
    counters.hold(at(0), 0, 0, KEY, 5).unwrap();
    assert_eq!(nothing(0), Some((0, true)));
    counters.commit(at(1), 0, KEY, 5);
    assert_eq!((nothing(1000), nothing(1001)), (Some((0, true)), None));
}

#[test]
fn a_key_above_its_lowest_step_is_limited() {
    let counters = in_steps(2);
    counters.commit(at(0), 0, KEY, 3);
    assert_eq!(counters.stats(0).limited, 0);
    counters.commit(at(0), 0, KEY, 1);
    assert_eq!(counters.stats(0).limited, 1);
    counters.block(at(1), 0, KEY, at(9));
    assert_eq!(step(&counters.hold_in_steps(at(1), 0, 0, KEY, 1)), Some((2, false)));
}
