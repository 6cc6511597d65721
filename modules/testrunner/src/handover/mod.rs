//! Handovers from ring 3: services that move, what is refused, deposits, deaths.

pub mod deaths;
pub mod deposits;
pub mod moving;
pub mod refusals;
pub mod rig;
pub mod states;
