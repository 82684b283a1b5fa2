//! Networks as disjoint sorted ranges: a look-up is one binary search.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Numbered networks.
#[derive(Debug, Default)]
pub(super) struct Networks {
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
    /// Of those inside others, the next around each.
    outer: HashMap<u32, u32>,
}

/// First and last address, and the number of the innermost network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range<T> {
    first: T,
    last: T,
    network: u32,
}

impl Networks {
    pub(super) fn new(networks: HashMap<IpNet, u32>) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (network, number) in networks {
            match network {
                IpNet::V4(net) => {
                    v4.push(Range { first: net.network().into(), last: net.broadcast().into(), network: number });
                }
                IpNet::V6(net) => {
                    v6.push(Range { first: net.network().into(), last: net.broadcast().into(), network: number });
                }
            }
        }
        let mut outer = HashMap::new();
        Self { v4: disjoint(v4, &mut outer), v6: disjoint(v6, &mut outer), outer }
    }

    /// The networks that hold `address`, the innermost first.
    pub(super) fn around(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let innermost = match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, address.into()),
            IpAddr::V6(address) => find(&self.v6, address.into()),
        };
        std::iter::successors(innermost, |network| self.outer.get(network).copied())
    }
}

fn find<T: Copy + Ord>(ranges: &[Range<T>], address: T) -> Option<u32> {
    let after = ranges.partition_point(|range| range.first <= address);
    let range = ranges.get(after.checked_sub(1)?)?;
    (address <= range.last).then_some(range.network)
}

/// An unsigned integer that has a neighbour.
trait Step: Copy + Ord {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl Step for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Step for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// Cuts nested networks so that no two ranges overlap and the innermost wins; networks either nest or are apart.
fn disjoint<T: Step>(mut ranges: Vec<Range<T>>, outer: &mut HashMap<u32, u32>) -> Vec<Range<T>> {
    ranges.sort_unstable_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let mut sweep = Sweep { cut: Vec::with_capacity(ranges.len()), open: Vec::new(), cursor: None };
    for range in ranges {
        sweep.close(Some(range.first));
        outer.extend(sweep.open.last().map(|around| (range.network, around.network)));
        sweep.open(range);
    }
    sweep.close(None);
    sweep.cut
}

/// A walk over all addresses, in order.
struct Sweep<T> {
    /// What is finished.
    cut: Vec<Range<T>>,
    /// The networks around the cursor, the innermost last.
    open: Vec<Range<T>>,
    /// The first address not covered yet; `None` before the first network and past the last address.
    cursor: Option<T>,
}

impl<T: Step> Sweep<T> {
    fn open(&mut self, range: Range<T>) {
        if let Some(outer) = self.open.last()
            && let Some(last) = range.first.previous()
            && let Some(first) = self.cursor.filter(|first| *first <= last)
        {
            self.cut.push(Range { first, last, network: outer.network });
        }
        self.cursor = Some(range.first);
        self.open.push(range);
    }

    /// Ends the networks that end before `next`; all of them for `None`.
    fn close(&mut self, next: Option<T>) {
        while let Some(range) = self.open.pop_if(|range| next.is_none_or(|next| range.last < next)) {
            if let Some(first) = self.cursor.filter(|first| *first <= range.last) {
                self.cut.push(Range { first, ..range });
                self.cursor = range.last.next();
            }
        }
    }
}
