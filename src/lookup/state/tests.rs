//! Saving and restoring, with files.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::super::limits::Load;
use super::*;
use crate::config::Config;
use crate::config::Source;
use crate::policy::Policy;

const RATE: &str = "limit = { key = \"login\", messages = \"5/hour\" }";

/// A directory of a test's own.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("postward-state-{}-{number}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn shared(rules: &[(&str, &str)]) -> Arc<Shared> {
    let text: String = rules.iter().map(|(name, rule)| format!("[[rule]]\nname = \"{name}\"\n{rule}\n")).collect();
    let (config, mut diagnostics) = Config::read(vec![Source { path: "test.toml".into(), text }]);
    let policy = Policy::compile(&config, &mut diagnostics);
    Shared::new(Arc::new(policy.unwrap_or_else(|| panic!("{diagnostics}"))))
}

fn charge(shared: &Shared, counter: usize, key: &[u8], amount: u64) {
    shared.counters.commit(shared.clock.now(), counter, key, amount);
}

fn charged(shared: &Shared, counter: usize, key: &[u8]) -> u64 {
    shared.counters.show(shared.clock.now(), counter, key).map_or(0, |view| view.charged)
}

fn is_blocked(shared: &Shared, counter: usize, key: &[u8]) -> bool {
    shared.counters.show(shared.clock.now(), counter, key).is_some_and(|view| view.blocked.is_some())
}

/// What was found, which must be whole: keys and notes.
fn whole(found: Found) -> (u64, Vec<String>) {
    match found {
        Found::Whole { saved, notes, .. } => (saved.keys, notes),
        found @ (Found::Damaged { .. } | Found::Nothing) => panic!("{found:?}"),
    }
}

#[test]
fn counts_and_blocks_are_there_again() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("rate", RATE)]);
    assert!(matches!(before.restore(&store), Ok(Found::Nothing)));
    charge(&before, 0, b"alice", 3);
    let now = before.clock.now();
    before.counters.block(now, 0, b"bob", now + Duration::from_secs(3600));
    let saved = before.save(&store).unwrap();
    assert_eq!((saved.keys, directory.names()), (2, vec!["counters".to_owned(), "lock".to_owned()]));
    let metadata = fs::metadata(store.path(FILE)).unwrap();
    assert_eq!((saved.bytes, metadata.permissions().mode() & 0o777), (metadata.len(), 0o600));
    let after = shared(&[("rate", RATE)]);
    assert_eq!(whole(after.restore(&store).unwrap()), (2, Vec::new()));
    assert_eq!((charged(&after, 0, b"alice"), after.limit_keys()), (3, 2));
    assert!(is_blocked(&after, 0, b"bob"));
}

#[test]
fn more_keys_than_are_exported_at_once_are_all_saved() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("rate", RATE)]);
    let keys = 3000_u32;
    assert!(keys as usize > 2 * CHUNK);
    (0..keys).for_each(|key| charge(&before, 0, &key.to_be_bytes(), 1));
    assert_eq!(before.save(&store).unwrap().keys, u64::from(keys));
    let after = shared(&[("rate", RATE)]);
    after.restore(&store).unwrap();
    assert!((0..keys).all(|key| charged(&after, 0, &key.to_be_bytes()) == 1));
}

/// Counters are found by what they count, wherever they stand.
#[test]
fn another_configuration_takes_over_what_it_has() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[
        ("gone", RATE),
        ("rate", "limit = { key = [\"client\", \"login\"], messages = \"5/hour\", recipients = \"9/hour\" }"),
        ("key", RATE),
        ("longer", RATE),
    ]);
    (0..5).for_each(|counter| charge(&before, counter, b"alice", 1 + counter as u64));
    before.save(&store).unwrap();
    let after = shared(&[
        ("longer", "limit = { key = \"login\", messages = [\"4/hour\", \"50/day\"] }"),
        ("key", "limit = { key = \"sender\", messages = \"5/hour\" }"),
        ("rate", "limit = { key = [\"client/32/64\", \"login\"], recipients = \"1/minute\", messages = \"5/hour\" }"),
    ]);
    let (keys, notes) = whole(after.restore(&store).unwrap());
    assert_eq!(keys, 5);
    assert_eq!(
        notes,
        [
            "rule `gone`, messages by login: not in this configuration; dropped, keys: 1",
            "rule `key`, messages by login: not in this configuration; dropped, keys: 1",
            "rule `longer`, messages by login: now counted for 1 day, and so far only for 1 hour",
        ]
    );
    let counts: Vec<_> = after.policy.counters().iter().map(|counter| counter.measure.name()).collect();
    assert_eq!(counts, ["messages", "messages", "messages", "recipients"]);
    let counts: Vec<_> = (0..4).map(|counter| charged(&after, counter, b"alice")).collect();
    assert_eq!(counts, [5, 0, 2, 3]);
}

#[test]
fn time_goes_on_while_nobody_counts_and_never_back() {
    let hour = 3_600_000_000_000;
    let record = |charges: &[(i64, u64)], block| Record {
        counter: 7,
        whose: None,
        key: Vec::new(),
        charges: charges.to_vec(),
        block,
    };
    let saved = record(&[(hour, 1), (-5, 2)], Some((5, -hour)));
    assert_eq!(older(saved.clone(), 1, Duration::from_nanos(10)).charges, [(hour + 10, 1), (5, 2)]);
    assert_eq!(older(saved.clone(), 1, Duration::from_nanos(10)).block, Some((15, 10 - hour)));
    assert_eq!(older(saved.clone(), 1, Duration::ZERO).charges, [(hour, 1), (0, 2)], "none in the future");
    assert_eq!(
        older(saved, 1, Duration::MAX),
        Record { counter: 1, ..record(&[(i64::MAX, 1), (i64::MAX - 5, 2)], Some((i64::MAX, i64::MAX - hour))) }
    );
}

/// A file for every place at which one can be cut, and for every bit that can be another one.
#[test]
fn a_damaged_file_is_set_aside_and_nothing_of_it_counts() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("rate", RATE)]);
    charge(&before, 0, b"alice", 3);
    charge(&before, 0, b"bob", 1);
    before.save(&store).unwrap();
    let bytes = fs::read(store.path(FILE)).unwrap();
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    let flipped = (0..bytes.len()).map(|byte| {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << (byte % 8);
        flipped
    });
    let after = shared(&[("rate", RATE)]);
    for damaged in cut.chain(flipped) {
        fs::write(store.path(FILE), &damaged).unwrap();
        let found = after.restore(&store).unwrap();
        let Found::Damaged { aside: Ok(aside), .. } = &found else { panic!("{found:?}") };
        assert_eq!(fs::read(aside).unwrap(), damaged);
        assert!(after.limit_keys() == 0 && !store.path(FILE).exists(), "{found:?}");
    }
    assert!(after.save(&store).is_ok());
}

#[test]
fn only_a_few_damaged_files_are_kept() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    for day in 10..20 {
        fs::write(store.path(&format!("{DAMAGED}200001{day}T000000Z")), "").unwrap();
    }
    fs::write(store.path(FILE), "not ours").unwrap();
    let found = shared(&[]).restore(&store).unwrap();
    let Found::Damaged { problem, aside: Ok(aside) } = found else { panic!("{found:?}") };
    assert_eq!(problem, "it is not a state file");
    let aside = aside.file_name().unwrap().to_str().unwrap().to_owned();
    let kept = ["counters.damaged-20000118T000000Z", "counters.damaged-20000119T000000Z", &aside, "lock"];
    assert_eq!(directory.names(), kept);
}

#[test]
fn a_directory_serves_one_program_at_a_time() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    assert_eq!(Store::open(&directory.0, Arc::default()).unwrap_err().to_string(), "another postward uses it");
    drop(store);
    // What a save that was killed has left is gone.
    fs::write(directory.0.join(NEW), "half a file").unwrap();
    Store::open(&directory.0, Arc::default()).unwrap();
    assert_eq!(directory.names(), ["lock"]);
}

#[test]
fn a_save_that_fails_leaves_what_was_saved_before() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("rate", RATE)]);
    charge(&before, 0, b"alice", 3);
    before.save(&store).unwrap();
    fs::create_dir(store.path(NEW)).unwrap();
    assert!(before.save(&store).is_err());
    let after = shared(&[("rate", RATE)]);
    after.restore(&store).unwrap();
    assert_eq!(charged(&after, 0, b"alice"), 3);
}

/// The hash of a value means the same after a restart, and only for who counts the same values.
#[test]
fn different_values_are_known_again() {
    const NETWORKS: &str = "limit = { key = \"login\", distinct = \"2/hour\", of = \"client/24\" }";
    const NAMES: &str = "limit = { key = \"login\", distinct = \"2/hour\", of = \"helo\" }";
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("a", NETWORKS), ("b", NETWORKS)]);
    for (counter, value) in [(0, b"one"), (0, b"two"), (1, b"one")] {
        let value = Load::Value(before.hashes.of(value));
        before.counters.commit(before.clock.now(), counter, b"alice", value);
    }
    before.save(&store).unwrap();
    let after = shared(&[("b", NAMES), ("a", NETWORKS)]);
    let (keys, notes) = whole(after.restore(&store).unwrap());
    let dropped = "rule `b`, distinct client/24/64 by login: not in this configuration; dropped, keys: 1";
    assert_eq!((keys, notes), (2, vec![dropped.to_owned()]));
    let fits = |value| {
        let value = Load::Value(after.hashes.of(value));
        after.counters.hold(after.clock.now(), 1, 0, b"alice", value).is_ok()
    };
    assert!(fits(b"one") && fits(b"two") && !fits(b"three"));
    after.save(&store).unwrap();
    let again = shared(&[("a", NETWORKS)]);
    again.restore(&store).unwrap();
    assert_eq!(again.hashes.of(b"one"), before.hashes.of(b"one"));
}

#[test]
fn what_was_tried_is_known_again() {
    const DICTIONARY: &str = "limit = { key = \"client\", bad_recipients = \"50% of 4/hour\" }";
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("dictionary", DICTIONARY)]);
    for is_refused in [true, true, true, false] {
        before.note(before.clock.now(), 0, 0, b"client", is_refused);
    }
    before.save(&store).unwrap();
    let after = shared(&[("dictionary", DICTIONARY)]);
    assert_eq!(whole(after.restore(&store).unwrap()), (1, Vec::new()));
    let tries = after.show_limit(0, b"client").unwrap().tries;
    assert_eq!((tries[0].tried, tries[0].refused), (4, 3));
    assert!(after.counters.hold(after.clock.now(), 0, 0, b"client", Load::Try).is_err());
}

/// It may be whole, and the disk better tomorrow: it is not put aside as if nobody could ever read it.
#[test]
fn a_file_that_cannot_be_read_is_not_damaged() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    // To be opened, but not to be read.
    fs::create_dir(store.path(FILE)).unwrap();
    let error = shared(&[("rate", RATE)]).restore(&store).unwrap_err();
    assert_eq!(error.to_string(), "cannot read counters: Is a directory (os error 21)");
    assert_eq!(directory.names(), ["counters", "lock"]);
}

/// That old ones cannot be removed says nothing about the one that was put aside.
#[test]
fn a_damaged_file_is_set_aside_even_if_older_ones_cannot_be_removed() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    fs::write(store.path(FILE), "nonsense").unwrap();
    for year in 1..=KEPT + 1 {
        // No file, so that it cannot be removed as one.
        fs::create_dir(store.path(&format!("{DAMAGED}000{year}"))).unwrap();
    }
    let found = shared(&[("rate", RATE)]).restore(&store).unwrap();
    assert!(matches!(&found, Found::Damaged { aside: Ok(aside), .. } if aside.exists()), "{found:?}");
}

#[test]
fn a_directory_that_was_made_anew_is_taken_again_but_not_from_another() {
    let directory = Directory::new();
    let store = Store::open(&directory.0, Arc::default()).unwrap();
    let before = shared(&[("rate", RATE)]);
    charge(&before, 0, b"alice", 3);
    fs::remove_dir_all(&directory.0).unwrap();
    assert_eq!(before.save(&store).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::create_dir(&directory.0).unwrap();
    let other = Store::open(&directory.0, Arc::default()).unwrap();
    fs::write(other.path(NEW), "what the other is about to save").unwrap();
    assert_eq!(before.save(&store).unwrap_err().to_string(), "another postward uses it");
    assert_eq!(directory.names(), ["counters.new", "lock"], "the other's file was touched");
    drop(other);
    before.save(&store).unwrap();
    assert_eq!(Store::open(&directory.0, Arc::default()).unwrap_err().to_string(), "another postward uses it");
}
