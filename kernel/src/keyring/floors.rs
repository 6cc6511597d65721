//! Floors: the lowest security version of each module that may run. They only rise.

use alloc::vec::Vec;
use core::cmp::Ordering;
use sila_abi::Error;
use sila_abi::boot::Floor;
use sila_abi::record::Name;

/// Modules that can have a floor.
const MAX_FLOORS: usize = 1024;
/// Places that only signed records may take, so that finalised updates do not use up what the root needs.
const RESERVED: usize = 256;

/// How a floor came to be as high as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Origin {
    /// The boot manifest says so.
    Boot = 1,
    /// An update was finalised.
    Finalised = 2,
    /// A signed floor record.
    Record = 3,
    /// The unsigned floor record of the boot bundle, which was exported before.
    Imported = 4,
}

/// The floors of all modules.
pub struct Floors {
    list: Vec<(Floor, Origin)>,
    /// Places in the list, by publisher and name, so that looking one up takes few steps however many there are.
    order: Vec<u16>,
    /// Sequence of the last signed floor record.
    pub sequence: u64,
    /// Floors that the imported record raised.
    pub imported: u64,
    /// Floors of that record that were not taken whole.
    pub clipped: u64,
}

impl Default for Floors {
    fn default() -> Self {
        let (list, order) = (Vec::with_capacity(MAX_FLOORS), Vec::with_capacity(MAX_FLOORS));
        Floors { list, order, sequence: 0, imported: 0, clipped: 0 }
    }
}

impl Floors {
    /// Where a module stands in the order, or would.
    fn search(&self, publisher: &Name, name: &Name) -> Result<usize, usize> {
        self.order.binary_search_by(|at| {
            let floor = self.list.get(usize::from(*at)).map(|(floor, _)| floor);
            floor.map_or(Ordering::Greater, |f| (&f.publisher, &f.name).cmp(&(publisher, name)))
        })
    }

    fn find(&self, publisher: &Name, name: &Name) -> Option<&(Floor, Origin)> {
        let at = self.search(publisher, name).ok()?;
        self.list.get(usize::from(*self.order.get(at)?))
    }

    /// The floor of a module; 0 if it has none.
    pub fn of(&self, publisher: &Name, name: &Name) -> u32 {
        self.find(publisher, name).map_or(0, |(f, _)| f.security_version)
    }

    /// The floor number `index`, and how it came to be.
    pub fn get(&self, index: usize) -> Option<&(Floor, Origin)> {
        self.list.get(index)
    }

    /// How many modules have a floor.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if a floor as high as this needs an entry of its own.
    pub fn needs(&self, publisher: &Name, name: &Name, to: u32) -> bool {
        to > 0 && self.find(publisher, name).is_none()
    }

    /// How many modules can still get a floor by finalised updates.
    pub fn left(&self) -> usize {
        (MAX_FLOORS - RESERVED).saturating_sub(self.list.len())
    }

    fn room(&self, origin: Origin) -> usize {
        if origin == Origin::Finalised { self.left() } else { MAX_FLOORS.saturating_sub(self.list.len()) }
    }

    /// Raises a floor; true if it was lower.
    pub fn raise(&mut self, to: &Floor, origin: Origin) -> Result<bool, Error> {
        if self.of(&to.publisher, &to.name) >= to.security_version {
            return Ok(false);
        }
        match self.search(&to.publisher, &to.name) {
            Ok(at) => {
                let place = self.order.get(at).copied().unwrap_or(u16::MAX);
                if let Some(entry) = self.list.get_mut(usize::from(place)) {
                    *entry = (*to, origin);
                }
            }
            Err(_) if self.room(origin) == 0 => return Err(Error::ArenaFull),
            Err(at) => {
                self.order.insert(at, self.list.len() as u16);
                self.list.push((*to, origin));
            }
        }
        Ok(true)
    }

    /// Raises all of them, or none if there is no room.
    pub fn raise_all(&mut self, all: &[Floor], origin: Origin) -> Result<(), Error> {
        let new = all.iter().filter(|f| self.needs(&f.publisher, &f.name, f.security_version)).count();
        if new > self.room(origin) {
            return Err(Error::ArenaFull);
        }
        all.iter().try_for_each(|floor| self.raise(floor, origin).map(|_| ()))
    }
}
