//! Bytes to frames to commands.

use divan::Bencher;
use divan::black_box;
use divan::counter::ItemsCount;
use postward::wire::Command;
use postward::wire::Frame;

use crate::sample;

/// All frames of a session with one message.
#[divan::bench]
fn frames_of_a_session(bencher: Bencher<'_, '_>) {
    let bytes = sample::bytes();
    bencher
        .counter(ItemsCount::new(each_frame(&bytes, |_| {})))
        .bench(|| each_frame(&bytes, |frame| _ = black_box(frame)));
}

/// The same, and what they say.
#[divan::bench]
fn commands_of_a_session(bencher: Bencher<'_, '_>) {
    let bytes = sample::bytes();
    bencher
        .counter(ItemsCount::new(each_frame(&bytes, |_| {})))
        .bench(|| each_frame(&bytes, |frame| _ = black_box(Command::decode(frame).unwrap())));
}

fn each_frame(bytes: &[u8], mut take: impl FnMut(Frame<'_>)) -> usize {
    let (mut rest, mut frames) = (bytes, 0);
    while let Some((frame, length)) = Frame::split(rest).unwrap() {
        take(frame);
        frames += 1;
        rest = rest.get(length..).unwrap_or_default();
    }
    frames
}
