//! Why the chain of trust refuses something: one variant and one stable number for each rule.

use core::fmt;
use sila_abi::Error;
use sila_abi::manifest::ManifestError;
use sila_abi::package::PackageError;
use sila_abi::sif::SifError;
use sila_abi::trust::RecordError;

macro_rules! chain_errors {
    ($($name:ident = $num:literal => $kernel:ident, $text:literal;)*) => {
        /// Why something is not trusted. [`ChainError::number`] is stable: numbers are never reused.
        ///
        /// Numbers: 1 to 255 for the rules named here, 0x100 + rule for packages, 0x200 for manifests, 0x300 for
        /// images, 0x400 for signed records, 0x500 for load proofs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ChainError {
            $(#[doc = $text] $name,)*
            /// A capability request asks for more than the publisher's certificate allows. Number 255.
            RequestCeiling {
                /// The slot of the request.
                slot: u16,
            },
            /// The package is malformed.
            Package(PackageError),
            /// The manifest is malformed.
            Manifest(ManifestError),
            /// The image header is malformed.
            Image(SifError),
            /// A signed record is malformed.
            Record(RecordError),
            /// The load proof is malformed.
            Proof(PackageError),
        }

        impl ChainError {
            /// The rule's stable number.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $num,)*
                    Self::RequestCeiling { .. } => 0xff,
                    Self::Package(error) => 0x101 + error as u16,
                    Self::Manifest(error) => 0x200 + error.number(),
                    Self::Image(error) => 0x301 + error as u16,
                    Self::Record(error) => 0x401 + error as u16,
                    Self::Proof(error) => 0x501 + error as u16,
                }
            }

            /// The kernel's error for this refusal; its word 0 is [`Self::detail`].
            pub const fn kernel_error(self) -> Error {
                match self {
                    $(Self::$name => Error::$kernel,)*
                    Self::RequestCeiling { .. } => Error::RequestCeiling,
                    Self::Package(_) | Self::Proof(_) => Error::BadProof,
                    Self::Manifest(_) => Error::ManifestMalformed,
                    Self::Image(SifError::AbiVersion) => Error::AbiVersion,
                    Self::Image(_) => Error::BadImage,
                    Self::Record(_) => Error::RecordMalformed,
                }
            }
        }

        impl fmt::Display for ChainError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::RequestCeiling { slot } => {
                        write!(f, "the request for slot {slot} exceeds the publisher's ceiling")
                    }
                    Self::Package(error) => write!(f, "the package is refused: {error}"),
                    Self::Manifest(error) => error.fmt(f),
                    Self::Image(error) => error.fmt(f),
                    Self::Record(error) => error.fmt(f),
                    Self::Proof(error) => write!(f, "the load proof is refused: {error}"),
                }
            }
        }
    };
}

chain_errors! {
    UnknownKey = 1 => UnknownKey, "the publisher's key is not known";
    KeyRevoked = 2 => KeyRevoked, "the publisher's key is revoked";
    WrongPurpose = 3 => WrongPurpose, "a key of another purpose (test or release) signed this";
    AlgorithmMismatch = 4 => WeakAlgorithm, "the algorithm named is not the key's";
    AlgorithmNotAllowed = 5 => WeakAlgorithm, "policy does not allow the signature algorithm";
    PackageSignature = 6 => RecordSignature, "the package's signature is invalid";
    ManifestSignature = 7 => ManifestSignature, "the manifest's signature is invalid";
    BinarySignature = 8 => BinarySignature, "the binary's signature is invalid";
    KeyMismatch = 9 => UnknownKey, "the manifest names another key than its header";
    PublisherMismatch = 10 => WrongPublisher, "the manifest's publisher is not the one its key is certified for";
    Namespace = 11 => Namespace, "the publisher may not sign modules of this name";
    VersionOutsideCertificate = 12 => Namespace, "the publisher may not sign this version";
    VersionRevoked = 13 => VersionRevoked, "this version of the module is revoked";
    BelowFloor = 14 => BelowFloor, "the security version lies below the floor";
    ResourceCeiling = 15 => RequestCeiling, "the manifest's resources exceed the publisher's ceiling";
    AgentNotAllowed = 16 => RequestCeiling, "the publisher may not sign agents";
    ImageLength = 17 => ImageSize, "the image's length differs from the manifest's";
    ImageDigest = 18 => ImageDigest, "the image's digest differs from the manifest's";
    ImageTooLong = 19 => ImageSize, "the image is longer than policy allows";
    EntryMismatch = 20 => EntryOutsideCode, "the image's entry differs from the manifest's";
    FaultEntryOutsideCode = 21 => EntryOutsideCode, "the fault entry lies outside the code";
    PayloadLength = 22 => ImageSize, "the payload's length differs from the manifest's";
    PayloadDigest = 23 => ImageDigest, "the payload's digest differs from the manifest's";
    UnknownRootKey = 24 => UnknownKey, "a signature names a root key that does not exist";
    Threshold = 25 => RecordSignature, "fewer root keys signed than the root set demands";
    RecordSignature = 26 => RecordSignature, "a root key's signature is invalid";
    RootSetMismatch = 27 => RecordSignature, "the boot manifest belongs to another root set";
    UnknownBootModule = 28 => RecordMalformed, "the boot manifest lists no such module";
    BootModuleDigest = 29 => ImageDigest, "the module's manifest is not the one that the boot manifest lists";
    PublicKey = 30 => RecordMalformed, "a public key in the record is unusable";
    StaleSequence = 31 => RecordStale, "the record's sequence is not newer than the one in force";
    NoMemory = 32 => OutOfObjectBytes, "no memory for the decoded key";
    NamespaceOverlap = 33 => Namespace, "the certificate's namespace overlaps another publisher's";
    RecordKind = 34 => RecordMalformed, "the record is of another kind than was asked for";
    SuccessorThreshold = 35 => RecordSignature, "fewer keys of the new root set signed it than it demands";
    IntegrityFault = 36 => IntegrityFault, "a stored security decision is corrupt";
}

impl core::error::Error for ChainError {}

impl ChainError {
    /// What word 0 of the kernel's answer says: the slot for a request, else the rule's number.
    pub const fn detail(self) -> u64 {
        match self {
            Self::RequestCeiling { slot } => slot as u64,
            other => other.number() as u64,
        }
    }

    /// The name of the rule, without parameters: for tests and audit records.
    #[cfg(feature = "std")]
    pub fn name(self) -> String {
        format!("{self:?}").split([' ', '{']).next().unwrap_or_default().to_string()
    }
}

impl From<ManifestError> for ChainError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

impl From<RecordError> for ChainError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

impl From<SifError> for ChainError {
    fn from(error: SifError) -> Self {
        Self::Image(error)
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        error.kernel_error()
    }
}
