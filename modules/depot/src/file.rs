//! What a pushed file is. Nothing in it is verified here.

use crate::store::Hints;
use alloc::format;
use alloc::string::String;
use sila_abi::manifest::Manifest;
use sila_abi::package::{PACKAGE_MAGIC, Package};
use sila_abi::trust::{Record, RecordKind, SignedRecord};

/// A file that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A package, and what its manifest says of it.
    Package(Hints),
    /// A record with root signatures, for the kernel; of what kind it says that it is.
    Record(RecordKind),
}

/// Tells what a file is.
///
/// # Errors
/// The sentence for whoever pushed it.
pub fn classify(bytes: &[u8]) -> Result<File, String> {
    if !bytes.starts_with(&PACKAGE_MAGIC) {
        return match SignedRecord::decode(bytes) {
            Ok(signed) => Ok(File::Record(signed.kind)),
            Err(error) => Err(format!("the file is no package, and as a signed record: {error}")),
        };
    }
    let package = Package::parse(bytes).map_err(|error| format!("the package is malformed: {error}"))?;
    let manifest =
        Manifest::decode(package.manifest).map_err(|error| format!("the package's manifest: {error}"))?;
    Ok(File::Package(Hints {
        name: manifest.name,
        version: manifest.version,
        publisher: manifest.publisher,
        kind: manifest.kind as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use sila_abi::record::Bounded;
    use sila_abi::trust::SignatureSet;

    #[test]
    fn records_are_told_from_what_is_none() {
        let record = Bounded::from_vec(Vec::from([1, 2, 3])).unwrap();
        let kind = RecordKind::Revocation;
        let (signatures, successor_signatures) = (SignatureSet::default(), SignatureSet::default());
        let signed = SignedRecord { kind, record, signatures, successor_signatures }.encode().unwrap();
        assert_eq!(classify(&signed), Ok(File::Record(kind)));
        for bad in [&signed[..signed.len() - 1], b"", b"hello", &[signed.as_slice(), b"x"].concat()] {
            let error = classify(bad).unwrap_err();
            assert!(error.starts_with("the file is no package, and as a signed record: "), "{error}");
        }
    }

    #[test]
    fn a_package_that_is_cut_short_is_refused_by_its_rule() {
        let error = classify(&PACKAGE_MAGIC).unwrap_err();
        assert!(error.starts_with("the package is malformed: "), "{error}");
    }
}
