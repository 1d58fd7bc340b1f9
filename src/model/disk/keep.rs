//! What a cut leaves, chosen instead of left to chance: for those who try every case.

use super::{
    Kind, PowerDisk, State,
    image::{ALL_SECTORS, Image, PAGE, SECTOR},
    names::Node,
};

/// What a cut leaves of all that no flush has covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    names: KeptNames,
    pages: KeptPages,
    /// The new lengths of files.
    lengths: bool,
}

/// Changes of names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeptNames {
    Nothing,
    All,
    /// So many in one directory, all of them in the others.
    Some(String, usize),
}

/// Changed pages.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeptPages {
    Nothing,
    All,
    Only(Spot),
    AllBut(Spot),
}

/// Some sectors of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    path: String,
    node: Node,
    page: u32,
    /// A bit for each.
    sectors: u8,
}

impl Keep {
    /// Nothing survives.
    pub const NOTHING: Self = Self { names: KeptNames::Nothing, pages: KeptPages::Nothing, lengths: false };

    fn pages(pages: KeptPages) -> Self {
        Self { names: KeptNames::All, pages, lengths: true }
    }

    fn sectors(&self, node: Node, page: u32) -> u8 {
        let of = |spot: &Spot| if (spot.node, spot.page) == (node, page) { spot.sectors } else { 0 };
        match &self.pages {
            KeptPages::Nothing => 0,
            KeptPages::All => ALL_SECTORS,
            KeptPages::Only(spot) => of(spot),
            KeptPages::AllBut(spot) => !of(spot),
        }
    }
}

impl PowerDisk {
    /// The cuts that the present moment allows: nothing left; of the names each prefix; lengths without data; each unflushed
    /// page alone there and alone missing; the same with each sector of the newest write to each file. That all survives is
    /// not among them: that is [`PowerDisk::restart_process`].
    pub fn possible_cuts(&self) -> Vec<Keep> {
        let state = self.state.lock();
        let mut out = vec![Keep::NOTHING];
        for (dir, changes) in state.names.unflushed().filter(|(_, changes)| *changes > 0) {
            let names = |survive| KeptNames::Some(dir.clone(), survive);
            out.extend(
                (0..changes).map(|survive| Keep { names: names(survive), ..Keep::pages(KeptPages::All) }),
            );
        }
        let spots = spots(&state);
        let more = |(_, kind): (&String, Kind)| match kind {
            Kind::File(node) => {
                state.files.get(node)?.as_ref().filter(|image| image.length_is_unflushed()).map(drop)
            }
            Kind::Directory => None,
        };
        // Of a single page "alone there" is everything, and "alone missing" is this.
        if spots.len() == 1 || state.names.all().find_map(more).is_some() || out.len() > 1 {
            out.push(Keep::pages(KeptPages::Nothing));
        }
        let alone = spots.len() > 1;
        for spot in spots.into_iter().filter(|spot| alone || spot.sectors != ALL_SECTORS) {
            out.push(Keep::pages(KeptPages::Only(spot.clone())));
            out.push(Keep::pages(KeptPages::AllBut(spot)));
        }
        out
    }

    /// The power goes now, if it has not gone, and comes back: this is what is left.
    pub fn power_up_with(&self, keep: &Keep) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.names.cut_to(|dir, changes| match &keep.names {
            KeptNames::Nothing => 0,
            KeptNames::Some(here, survive) if here == dir => *survive,
            KeptNames::All | KeptNames::Some(..) => changes,
        });
        for (node, image) in state.files.iter_mut().enumerate() {
            if let Some(image) = image {
                image.cut_to(|page| keep.sectors(node, page), keep.lengths);
            }
        }
        state.revive();
    }
}

/// Unflushed pages of files that have a name, and the sectors of the newest writes.
fn spots(state: &State) -> Vec<Spot> {
    let mut out = Vec::new();
    for (path, kind) in state.names.all() {
        let Kind::File(node) = kind else { continue };
        let Some(image) = state.files.get(node).and_then(Option::as_deref) else { continue };
        let spot = |page, sectors| Spot { path: path.clone(), node, page, sectors };
        out.extend(image.unflushed().iter().map(|page| spot(*page, ALL_SECTORS)));
    }
    let pages = out.len();
    for (path, kind) in state.names.all() {
        let Kind::File(node) = kind else { continue };
        let Some(image) = state.files.get(node).and_then(Option::as_deref) else { continue };
        for (page, sectors) in last_sectors(image) {
            out.push(Spot { path: path.clone(), node, page, sectors });
        }
    }
    // A write of one sector in a page with nothing else is that page.
    if out.len() == pages + 1 && pages == 1 {
        out.truncate(pages);
    }
    out
}

/// The sectors of the newest unflushed write in which it made a difference, one by one.
fn last_sectors(image: &Image) -> Vec<(u32, u8)> {
    let range = image.last_write().unwrap_or_default();
    let sectors = range.start / SECTOR..range.end.div_ceil(SECTOR);
    let changed = sectors.filter(|sector| image.differs(sector * SECTOR));
    let place = |sector: usize| {
        let page = u32::try_from(sector * SECTOR / PAGE).ok()?;
        Some((page, 1 << (sector % (PAGE / SECTOR))))
    };
    changed.filter_map(place).collect()
}
