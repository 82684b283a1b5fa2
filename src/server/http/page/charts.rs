//! Small charts: one bar for each slot of time, in SVG. What they show stands in a table, too; they are for the eye.

use maud::Markup;
use maud::html;

use super::words;

/// A bar takes ten units, of which two are space.
const STEP: usize = 10;
const BAR: usize = 8;
const HEIGHT: u64 = 100;

/// One of the parts that a bar consists of.
pub(super) struct Layer {
    /// The class of its colour.
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) counts: Vec<u64>,
}

/// Bars of several parts, the first at the bottom. `what` says what it is about, `ago` how the time of a slot, counted back
/// from now, is called.
pub(super) fn bars(layers: &[Layer], what: &str, span: &str, ago: impl Fn(usize) -> String) -> Markup {
    let slots = layers.iter().map(|layer| layer.counts.len()).max().unwrap_or_default();
    let count = |layer: &Layer, slot: usize| layer.counts.get(slot).copied().unwrap_or_default();
    let total = |slot: usize| layers.iter().map(|layer| count(layer, slot)).sum::<u64>();
    let most = (0..slots).map(total).max().unwrap_or_default();
    let parts: Vec<String> = layers.iter().map(|layer| part(layer.counts.iter().sum(), layer.name)).collect();
    let label = format!("{what}: {}; at most {} at a time.", parts.join(", "), words::number(most));
    html! {
        figure.chart {
            figcaption {
                span { (what) }
                span.scale { @if most > 0 { "top is " (words::number(most)) } @else { "nothing yet" } }
            }
            svg viewBox=(format!("0 0 {} {HEIGHT}", slots * STEP)) preserveAspectRatio="none" role="img" aria-label=(label) {
                @for slot in 0..slots {
                    g {
                        title { (ago(slots - 1 - slot)) ": " (told(layers, slot)) }
                        // So that an empty slot, too, tells what it is.
                        rect.slot x=(slot * STEP) y="0" width=(STEP) height=(HEIGHT) {}
                        @for (number, layer) in layers.iter().enumerate() {
                            @let below: u64 = layers.iter().take(number).map(|layer| count(layer, slot)).sum();
                            @if let Some((y, height)) = place(below, count(layer, slot), most) {
                                rect class=(layer.class) x=(slot * STEP + 1) y=(y) width=(BAR) height=(height) {}
                            }
                        }
                    }
                }
            }
            div.axis aria-hidden="true" { span { (span) " ago" } span { "now" } }
        }
    }
}

/// Bars in a row of a table, without words: what they show stands beside them.
pub(super) fn spark(counts: &[u32], class: &str) -> Markup {
    let most = counts.iter().copied().max().unwrap_or_default();
    html! {
        svg.spark viewBox=(format!("0 0 {} {HEIGHT}", counts.len() * STEP)) preserveAspectRatio="none" aria-hidden="true" {
            @for (slot, count) in counts.iter().enumerate() {
                @if let Some((y, height)) = place(0, (*count).into(), most.into()) {
                    rect class=(class) x=(slot * STEP) y=(y) width=(STEP - 1) height=(height) {}
                }
            }
        }
    }
}

/// What the colours mean.
pub(super) fn legend(layers: &[Layer]) -> Markup {
    html! {
        ul.legend { @for layer in layers { li { span class={ "key " (layer.class) } {} (layer.name) } } }
    }
}

fn told(layers: &[Layer], slot: usize) -> String {
    let parts = layers.iter().map(|layer| part(layer.counts.get(slot).copied().unwrap_or_default(), layer.name));
    parts.collect::<Vec<_>>().join(", ")
}

fn part(count: u64, name: &str) -> String {
    format!("{} {}", words::number(count), name.to_lowercase())
}

/// Top and height of a part of a bar; what is not nothing can be seen.
fn place(below: u64, count: u64, most: u64) -> Option<(u64, u64)> {
    if count == 0 || most == 0 {
        return None;
    }
    let at = |count: u64| count.saturating_mul(HEIGHT) / most;
    let height = (at(below + count) - at(below)).max(2);
    Some((HEIGHT.saturating_sub(at(below) + height), height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_on_one_another_and_small_ones_are_seen() {
        assert_eq!(place(0, 0, 10), None);
        assert_eq!(place(0, 10, 10), Some((0, 100)));
        assert_eq!(place(5, 5, 10), Some((0, 50)));
        assert_eq!(place(0, 1, 1_000_000), Some((98, 2)));
    }

    #[test]
    fn a_chart_is_told_in_words_as_well() {
        let layers = [
            Layer { class: "passed", name: "Passed", counts: vec![0, 3] },
            Layer { class: "refused", name: "Refused", counts: vec![1, 1] },
        ];
        let chart = bars(&layers, "Last hour", "60 min", |ago| format!("{ago} min ago")).into_string();
        assert!(chart.contains("Last hour: 3 passed, 2 refused; at most 4 at a time."), "{chart}");
        assert!(chart.contains("<title>1 min ago: 0 passed, 1 refused</title>"), "{chart}");
    }
}
