//! The system's policy: who may ask for what, and the limits that hold for everyone (the book, Trust, "Policy").
//!
//! A policy comes with the boot manifest, or later as a record that the root keys sign in the domain `sila/policy/v1`.
//! A newer one replaces the older whole.

extern crate alloc;
use crate::manifest::{CapRequest, Manifest, Selector};
use crate::object::ObjectType;
use crate::record::{Bounded, Name};
use crate::rights::Rights;
use crate::trust::{Record, RecordError, check_sequence, has_duplicate};
use borsh::{BorshDeserialize, BorshSerialize};

/// The most algorithms of a policy.
pub const MAX_ALGORITHMS: usize = 8;
/// The most rules of a policy.
pub const MAX_RULES: usize = 64;
/// The most LoadScopes of a policy.
pub const MAX_SCOPES: usize = 32;

/// Who may ask for what. A rule permits, it never forbids: what no rule covers is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PolicyRule {
    /// Its name, unique in the policy: what errors, audit records and `caps` show.
    pub name: Name,
    /// The publisher whose modules it is for; none: all.
    pub publisher: Option<Name>,
    /// The modules it is for: those of this name, and those whose names go on with `.` or `-` after it; none: all.
    pub module: Option<Name>,
    /// [`ObjectType`] number; 0: every type.
    pub object: u8,
    /// The rights that a request may name: bits of [`Rights`].
    pub rights: u16,
    /// The most that a request may ask for and that its source may hold: frames of a Pool (of the process's own Pool: the
    /// frames of the manifest's resources), bytes of a Region. Other types have no amount.
    pub amount: u64,
}

/// What a requester may have loaded, by the badge of the capability with which it asks ModuleManager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LoadScope {
    /// Its name, unique in the policy.
    pub name: Name,
    /// The badge that stands for it, not 0; unique.
    pub badge: u64,
    /// Modules that it may load: of this name, or going on with `.` or `-` after it; none: all.
    pub names: Option<Name>,
    /// Whether it may load agents, besides services.
    pub agents: bool,
    /// How many modules it may have at one time; at least 1.
    pub instances: u16,
    /// Whether it may grant capabilities of its own by name.
    pub grants: bool,
    /// Whether it may stop and see the modules of others.
    pub all: bool,
    /// The priority of what it loads, unless the manifest's ceiling is lower.
    pub priority: u8,
}

/// The limits that hold for every publisher. Domain `sila/policy/v1`, or a part of the boot manifest.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Policy {
    /// Rises with every policy.
    pub sequence: u64,
    /// Signature schemes in use.
    pub algorithms: Bounded<u16, MAX_ALGORITHMS>,
    /// Lowest NIST security level of a scheme.
    pub min_nist_level: u8,
    /// Fewest bits of every public key and signature.
    pub min_key_bits: u32,
    /// Longest image in bytes.
    pub max_image_len: u64,
    /// Largest decompression window, as a power of two.
    pub max_window_log: u8,
    /// Decompressions at one time.
    pub max_decompressions: u16,
    /// Process creations that may come at once, of each Job.
    pub creation_burst: u32,
    /// Process creations per second that refill the burst.
    pub creation_per_second: u32,
    /// Verification jobs that may wait at one time.
    pub max_verifications: u16,
    /// Frames that the module cache may hold.
    pub cache_frames: u64,
    /// Entries that the module cache may hold.
    pub cache_entries: u32,
    /// Who may ask for what, in the order in which they are looked through.
    pub rules: Bounded<PolicyRule, MAX_RULES>,
    /// What requesters may have loaded.
    pub scopes: Bounded<LoadScope, MAX_SCOPES>,
}

/// Why no rule permits a request. Rules are named by their place in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// No rule is for this module and object type.
    NoRule,
    /// This rule is, but not for all the rights.
    Rights(u8),
    /// This rule permits the rights, but less of it.
    Amount(u8),
}

/// Whether `name` is `prefix`, or goes on with `.` or `-` after it: `net` covers `net.dns` and `net-tools`, not `network`.
pub fn covers(prefix: &Name, name: &Name) -> bool {
    match name.as_bytes().strip_prefix(prefix.as_bytes()) {
        Some(rest) => matches!(rest.first(), None | Some(b'.' | b'-')),
        None => false,
    }
}

/// How much a request asks for, in the unit of its type.
pub fn amount_of(manifest: &Manifest, request: &CapRequest) -> u64 {
    if request.selector == Selector::OwnPool { manifest.resources.frames } else { request.amount }
}

impl PolicyRule {
    /// Whether the rule is for requests of this module for this type.
    fn concerns(&self, publisher: &Name, module: &Name, object: u8) -> bool {
        self.publisher.is_none_or(|p| p == *publisher)
            && self.module.is_none_or(|m| covers(&m, module))
            && (self.object == 0 || self.object == object)
    }
}

impl Policy {
    /// The place of the first rule that permits the request, or how close the closest came.
    pub fn permit(&self, manifest: &Manifest, request: &CapRequest) -> Result<u8, Forbidden> {
        self.permit_from(manifest, request, 0)
    }

    /// As [`Self::permit`], with a source that gives so much: the whole of a Pool or Region comes with the capability,
    /// however little was asked for.
    pub fn permit_from(
        &self,
        manifest: &Manifest,
        request: &CapRequest,
        whole: u64,
    ) -> Result<u8, Forbidden> {
        let asked = request.rights & !Rights::ENDOW.bits();
        let amount = amount_of(manifest, request).max(whole);
        let mut nearest = Forbidden::NoRule;
        for (place, rule) in (0u8..).zip(&self.rules) {
            if !rule.concerns(&manifest.publisher, &manifest.name, request.object) {
                continue;
            }
            if asked & !rule.rights != 0 {
                if nearest == Forbidden::NoRule {
                    nearest = Forbidden::Rights(place);
                }
            } else if amount > rule.amount {
                if !matches!(nearest, Forbidden::Amount(_)) {
                    nearest = Forbidden::Amount(place);
                }
            } else {
                return Ok(place);
            }
        }
        Err(nearest)
    }

    /// The scope of a badge.
    pub fn scope(&self, badge: u64) -> Option<&LoadScope> {
        self.scopes.iter().find(|scope| scope.badge == badge)
    }
}

impl Record for Policy {
    fn validate(&self) -> Result<(), RecordError> {
        check_sequence(self.sequence)?;
        if self.algorithms.is_empty() || has_duplicate(self.algorithms.iter()) {
            return Err(RecordError::BadAlgorithms);
        }
        let limits = [self.max_decompressions.into(), self.creation_burst, self.max_verifications.into()];
        if limits.contains(&0) {
            return Err(RecordError::BadLimit);
        }
        for rule in &self.rules {
            let known = rule.object == 0 || ObjectType::from_number(rule.object).is_some();
            let some = Rights::from_bits(rule.rights).is_some_and(|r| !r.is_empty() && r.usable());
            if !known || !some {
                return Err(RecordError::BadRule);
            }
        }
        if self.scopes.iter().any(|scope| scope.badge == 0 || scope.instances == 0) {
            return Err(RecordError::BadScope);
        }
        let twice = has_duplicate(self.rules.iter().map(|rule| rule.name))
            || has_duplicate(self.scopes.iter().map(|scope| scope.name));
        if twice {
            return Err(RecordError::DuplicateName);
        }
        if has_duplicate(self.scopes.iter().map(|s| s.badge)) { Err(RecordError::BadScope) } else { Ok(()) }
    }
}
