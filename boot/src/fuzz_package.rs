//! The command `fuzz-package`: packages that are nearly right, against the host build of the code that the guest checks
//! them with.
//!
//! Each run mutates something from its seed and number alone. Most runs give one step of the load path (the cutting of
//! packages and proofs, manifests, image headers, the decompressor) something that only signed bytes could bring there;
//! the others give whole packages to the whole chain. Nothing may panic. What a step accepts must keep every rule as
//! [`rules`] has them; the chain may accept nothing but the original packages, and what a publisher's key signed anew
//! if [`oracle`] finds nothing against it.

mod corpus;
mod fields;
mod mutate;
mod oracle;
mod rules;

use crate::cli::FuzzPackageArgs;
use crate::paths;
use crate::pkg::keys::test_keys;
use crate::pkg::verify::{Accepted, Refusal, verify_package};
use anyhow::Result;
use corpus::{Corpus, Sample};
use deep_compression::engine::{DecompressError, Limits, decompress_exact};
use fuzz::random::Random;
use mutate::Mutant;
use sila_abi::manifest::{Manifest, ManifestError};
use sila_abi::package::{LoadProof, Package};
use sila_abi::sif::{SifError, SifHeader};
use sila_crypto::keystore::KeyStore;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Findings after which no more are looked for.
const ENOUGH: usize = 10;
/// Of so many runs, one gives a package to the whole chain that a key signed anew.
const RESIGNED: u64 = 50;
/// Of so many runs, one gives a package to the whole chain that nobody signed.
const CARRIED: u64 = 6;

/// The code under test; tests put other code in its place, to see that it would be found.
#[derive(Clone, Copy)]
struct Target {
    chain: fn(&[u8], &KeyStore) -> Result<Accepted, Refusal>,
    manifest: fn(&[u8]) -> Result<Manifest, ManifestError>,
    image: fn(&[u8], u64) -> Result<(), SifError>,
    payload: fn(&[u8], &mut [u8]) -> Result<(), DecompressError>,
}

/// What the guest runs.
const REAL: Target = Target {
    chain: |bytes, store| verify_package(bytes, store),
    manifest: Manifest::decode,
    image: |page, length| SifHeader::parse(page, length).map(|_| ()),
    payload: |frame, out| decompress_exact(frame, out, &Limits::DEFAULT).map(|_| ()),
};

/// What came of all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often each answer was given.
    pub answers: BTreeMap<String, u64>,
    /// What must not be: run, and what happened.
    pub findings: BTreeMap<u64, String>,
}

impl Tally {
    fn count(&mut self, run: u64, answer: Result<String, String>) {
        match answer {
            Ok(answer) => *self.answers.entry(answer).or_default() += 1,
            Err(finding) => drop(self.findings.insert(run, finding)),
        }
    }

    fn merge(mut self, other: Self) -> Self {
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        self.findings.extend(other.findings);
        self
    }

    /// All of it, for people.
    fn text(&self, seed: u64, seconds: f64) -> String {
        let mut text: String =
            self.answers.iter().map(|(answer, count)| format!("{count:>9}  {answer}\n")).collect();
        for (run, finding) in self.findings.iter().take(ENOUGH) {
            text += &format!("FOUND by seed {seed}, run {run} (--only {run}): {finding}\n");
        }
        let of = |prefix: &str| -> u64 {
            let those = self.answers.iter().filter(|(answer, _)| answer.contains(prefix));
            those.map(|(_, count)| count).sum()
        };
        let all: u64 = self.answers.values().sum::<u64>() + self.findings.len() as u64;
        let (kept, originals, signed) = (of(": kept"), of("original"), of("rightly signed"));
        let refused = all - kept - originals - signed - self.findings.len() as u64;
        text + &format!(
            "fuzz-package: seed {seed}: {all} runs in {seconds:.0} s: {refused} refused, {kept} parts without fault, \
             {originals} unchanged and {signed} rightly signed packages accepted, {} findings\n",
            self.findings.len()
        )
    }
}

/// Runs the fuzzer; the answer is the tool's status.
pub fn run(args: &FuzzPackageArgs) -> Result<u8> {
    let corpus = Corpus::new(test_keys(&paths::state()?)?)?;
    let begun = Instant::now();
    let runs = match args.only {
        Some(run) => run..run.saturating_add(1),
        None => 0..args.runs,
    };
    let tally = fuzz(&corpus, REAL, args.seed, runs);
    print!("{}", tally.text(args.seed, begun.elapsed().as_secs_f64()));
    Ok(u8::from(!tally.findings.is_empty()))
}

/// These runs of a seed, on every core.
fn fuzz(corpus: &Corpus, target: Target, seed: u64, runs: std::ops::Range<u64>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let runs = runs.clone().skip(thread).step_by(threads);
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    for run in runs {
                        if tally.findings.len() >= ENOUGH {
                            break;
                        }
                        tally.count(run, one(corpus, target, seed, run));
                    }
                    tally
                })
            })
            .collect();
        let lost = |_| {
            let findings = [(0, "a thread of the fuzzer itself panicked".to_string())].into();
            Tally { findings, ..Tally::default() }
        };
        workers.into_iter().map(|w| w.join().unwrap_or_else(lost)).fold(Tally::default(), Tally::merge)
    })
}

/// One run: its answer, or what must not be.
fn one(corpus: &Corpus, target: Target, seed: u64, run: u64) -> Result<String, String> {
    let mut r = Random::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ run);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mutant = if r.once_in(RESIGNED) {
            mutate::resigned(&mut r, corpus)
        } else if r.once_in(CARRIED) {
            mutate::carried(&mut r, corpus)
        } else {
            return step(&mut r, corpus, target);
        };
        chain(corpus, target, &mutant.map_err(|error| format!("no mutant: {error:#}"))?)
    }));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or_else(|| panic.downcast_ref().copied()).unwrap_or("?")))
    })
}

/// The whole chain over a whole package.
fn chain(corpus: &Corpus, target: Target, mutant: &Mutant) -> Result<String, String> {
    let Mutant { how, bytes, resigned } = mutant;
    let original = corpus.samples.iter().any(|sample| sample.bytes == *bytes);
    match ((target.chain)(bytes, &corpus.store), original) {
        (Ok(_), true) => Ok("chain: original accepted".into()),
        (Err(refusal), true) => Err(format!("{how}: an original is refused: {refusal}")),
        (Ok(_), false) if !resigned => Err(format!("{how}: what nobody signed is accepted")),
        (Ok(_), false) => match oracle::acceptable(bytes, corpus) {
            Ok(()) => Ok("chain: rightly signed, accepted".into()),
            Err(rule) => Err(format!("{how}: accepted against the rule on: {rule}")),
        },
        (Err(refusal), false) => Ok(format!("chain: {}", refusal.name())),
    }
}

/// One step of the load path by itself.
fn step(r: &mut Random, corpus: &Corpus, target: Target) -> Result<String, String> {
    let (Some(base), Some(other)) = (r.pick(&corpus.samples), r.pick(&corpus.samples)) else {
        return Err("no samples".into());
    };
    match r.below(5) {
        0 => manifest(target, &mutate::other_manifest(r, &base.manifest, &other.manifest)),
        1 => image(target, &mutate::other_image(r, base), r),
        2 => payload(r, target, base),
        3 => package(&mutate::carried(r, corpus).map_err(|error| format!("{error:#}"))?.bytes),
        _ => proof(r, base),
    }
}

fn kept(what: &str, verdict: Result<(), &'static str>) -> Result<String, String> {
    match verdict {
        Ok(()) => Ok(format!("{what}: kept every rule")),
        Err(rule) => Err(format!("{what}: accepted against the rule on: {rule}")),
    }
}

fn manifest(target: Target, bytes: &[u8]) -> Result<String, String> {
    match (target.manifest)(bytes) {
        Ok(manifest) if manifest.encode().as_deref() != Ok(bytes) => {
            Err("a manifest of two encodings".into())
        }
        Ok(manifest) => kept("manifest", rules::manifest(&manifest)),
        Err(error) => Ok(format!("manifest: {error:?}")),
    }
}

fn image(target: Target, image: &[u8], r: &mut Random) -> Result<String, String> {
    let length = if r.once_in(8) { fields::odd(r, image.len() as u64) } else { image.len() as u64 };
    let page = image.get(..4096).unwrap_or(image);
    match (target.image)(page, length) {
        Ok(()) => kept("image", rules::image(page, length).map(|_| ())),
        Err(error) => Ok(format!("image: {error:?}")),
    }
}

fn payload(r: &mut Random, target: Target, base: &Sample) -> Result<String, String> {
    let mut frame = base.parts.payload.clone();
    let mut out = vec![0; base.image.len()];
    fields::scramble(r, &mut frame);
    if r.once_in(8) {
        out.resize(fields::odd(r, out.len() as u64) as usize % (1 << 20), 0);
    }
    match (target.payload)(&frame, &mut out) {
        Ok(()) => kept("payload", rules::payload(&frame, &out)),
        Err(error) => Ok(format!("payload: {error:?}")),
    }
}

fn package(bytes: &[u8]) -> Result<String, String> {
    let package = match Package::parse(bytes) {
        Ok(package) => package,
        Err(error) => return Ok(format!("package: {error:?}")),
    };
    let (manifest, payload, signature) =
        rules::package(bytes).map_err(|rule| format!("package: accepted against the rule on: {rule}"))?;
    let parts =
        [package.manifest, package.payload, package.package_sig, package.manifest_sig, package.binary_sig];
    let lengths = [manifest, payload, signature, signature, signature];
    let whole = bytes.get(128..) == Some(&parts.concat()) && bytes.starts_with(package.signed);
    let right =
        whole && parts.map(<[u8]>::len) == lengths && package.signed.len() == 128 + manifest + payload;
    if right { kept("package", Ok(())) } else { Err("a package is cut in the wrong places".into()) }
}

fn proof(r: &mut Random, base: &Sample) -> Result<String, String> {
    const FIELDS: [(usize, usize); 8] =
        [(0, 8), (8, 2), (10, 2), (12, 4), (16, 32), (48, 8), (56, 4), (60, 4)];
    let mut bytes = base.proof.clone();
    if r.once_in(3) {
        fields::scramble(r, &mut bytes);
    } else {
        let (at, length) = r.pick(&FIELDS).copied().unwrap_or((0, 8));
        let value = fields::odd(r, mutate::get(&bytes, at, length));
        mutate::put(&mut bytes, at, length, value);
    }
    let proof = match LoadProof::parse(&bytes) {
        Ok(proof) => proof,
        Err(error) => return Ok(format!("proof: {error:?}")),
    };
    let (manifest, signature) =
        rules::proof(&bytes).map_err(|rule| format!("proof: accepted against the rule on: {rule}"))?;
    let parts = [proof.manifest, proof.manifest_sig, proof.binary_sig];
    let right = bytes.get(64..).is_some_and(|rest| rest.starts_with(&parts.concat()))
        && parts.map(<[u8]>::len) == [manifest, signature, signature];
    if right { kept("proof", Ok(())) } else { Err("a proof is cut in the wrong places".into()) }
}

#[cfg(test)]
mod tests;
