//! What comes in at one listener: connections, messages, how large they are and to how many.

use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;

use super::register;
use crate::facts::Stage;
use crate::session::Decision;
use crate::session::MessageEnd;
use crate::session::Subject;

/// What is counted for one listener.
#[derive(Clone, Debug)]
pub struct Traffic {
    opened: IntCounter,
    active: IntGauge,
    messages: [(MessageEnd, IntCounter); 6],
    sizes: Histogram,
    recipients: Histogram,
}

/// The series of all listeners.
pub(super) struct Listeners {
    opened: IntCounterVec,
    active: IntGaugeVec,
    messages: IntCounterVec,
    sizes: HistogramVec,
    recipients: HistogramVec,
}

impl Listeners {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(registry, HistogramVec::new(options, &["listen"])?)
        };
        let active = Opts::new("postward_connections_active", "Connections from MTAs that are open");
        Ok(Self {
            opened: counters("postward_connections_total", "Connections from MTAs", &["listen"])?,
            active: register(registry, IntGaugeVec::new(active, &["listen"])?)?,
            messages: counters(
                "postward_messages_total",
                "Messages (MAIL commands), by what became of them",
                &["listen", "result"],
            )?,
            sizes: histograms(
                "postward_message_size_bytes",
                "Sizes of messages whose end was seen: counted where a rule asks for the size, else as declared by SIZE=, else left out",
                &SIZES,
            )?,
            recipients: histograms(
                "postward_message_recipients",
                "Recipients that were accepted, of messages whose end was seen",
                &RECIPIENTS,
            )?,
        })
    }

    /// All series of this listener: at zero, or where they have come to.
    pub(super) fn traffic(&self, listen: &str) -> Traffic {
        let listener = &[listen];
        Traffic {
            opened: self.opened.with_label_values(listener),
            active: self.active.with_label_values(listener),
            messages: MessageEnd::ALL.map(|end| (end, self.messages.with_label_values(&[listen, end.name()]))),
            sizes: self.sizes.with_label_values(listener),
            recipients: self.recipients.with_label_values(listener),
        }
    }
}

impl Traffic {
    /// An MTA connected.
    pub fn connection_opened(&self) {
        self.opened.inc();
        self.active.inc();
    }

    /// An MTA's connection ended.
    pub fn connection_closed(&self) {
        self.active.dec();
    }

    /// Counts the message that a decision ends.
    pub fn record(&self, decision: &Decision, subject: &Subject<'_>) {
        let Some(end) = decision.message else {
            return;
        };
        self.message_ended(end);
        if decision.stage == Stage::EndOfMessage {
            let size = subject.message.and_then(|message| message.true_size.or(message.declared_size));
            if let Some(size) = size {
                self.sizes.observe(size as f64);
            }
            self.recipients.observe(subject.recipients as f64);
        }
    }

    /// Counts a message that ended without a decision.
    pub fn message_ended(&self, end: MessageEnd) {
        if let Some((_, counter)) = self.messages.iter().find(|(known, _)| *known == end) {
            counter.inc();
        }
    }
}

/// From 1 KiB to 64 MiB.
const SIZES: [f64; 9] =
    [1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

/// RFC 5321 asks for at least 100 to be taken; Postfix stops at 1000.
const RECIPIENTS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0];
