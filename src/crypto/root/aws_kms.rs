//! The root key wrapped by AWS KMS, in builds with the feature `aws-kms`. INVARIANT: what was wrapped names its purpose in the
//! encryption context, so that no other use of the same KMS key unwraps it; a build without the feature says so.

use super::outside::Address;
use super::{Argon2Cost, Fresh, RootError, RootHeader, Source};
use crate::crypto::entropy::Entropy;
use crate::crypto::key::Key;

pub(super) const ROLE: &str = "AWS KMS";

/// Which key. Credentials come as AWS's tools take them: environment, profile, or the instance's role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AwsKms {
    /// The key's id, ARN or alias.
    pub key_id: String,
    pub region: Option<String>,
    /// Another place than the region's own.
    pub endpoint: Option<Address>,
}

#[cfg(not(feature = "aws-kms"))]
impl Source for &AwsKms {
    fn kind(&self) -> &'static str {
        ROLE
    }

    fn fresh(&self, _cost: Argon2Cost, _entropy: &dyn Entropy) -> Result<Fresh, RootError> {
        Err(RootError::NotBuilt)
    }

    fn unlock(&self, _header: &RootHeader) -> Result<Key, RootError> {
        Err(RootError::NotBuilt)
    }
}

#[cfg(feature = "aws-kms")]
mod with_the_feature {
    use aws_config::BehaviorVersion;
    use aws_config::retry::RetryConfig;
    use aws_config::timeout::TimeoutConfig;
    use aws_sdk_kms::Client;
    use aws_sdk_kms::config::Region;
    use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
    use aws_sdk_kms::primitives::Blob;
    use zeroize::Zeroizing;

    use super::*;
    use crate::crypto::root::outside::{PATIENCE, Trouble, block_on, cause, within};
    use crate::crypto::root::{PURPOSE, Wrapped, Wrapper, unwrapped};

    /// The key under which the encryption context names the purpose.
    const CONTEXT: &str = "purpose";

    impl Source for &AwsKms {
        fn kind(&self) -> &'static str {
            ROLE
        }

        fn fresh(&self, _cost: Argon2Cost, entropy: &dyn Entropy) -> Result<Fresh, RootError> {
            let key = Key::generate(entropy);
            let plain = Zeroizing::new(*key.expose());
            let kms = (*self).clone();
            let (name, blob) = within(ROLE, PATIENCE, move || {
                block_on(async {
                    let call = kms.client().await.encrypt().key_id(&kms.key_id).plaintext(Blob::new(plain.as_slice()));
                    let answer = call.encryption_context(CONTEXT, PURPOSE).send().await.map_err(told)?;
                    let blob = answer.ciphertext_blob.ok_or(Trouble::Nonsense)?.into_inner();
                    Ok((answer.key_id.unwrap_or(kms.key_id), blob))
                })
            })?;
            let wrapped = Wrapped::new(Wrapper::AwsKms, &name, blob)?;
            Ok(Fresh::of(key, RootHeader::Wrapped(wrapped)))
        }

        fn unlock(&self, header: &RootHeader) -> Result<Key, RootError> {
            // KMS itself compares the key that we name with the one that wrapped, whatever alias names it.
            let blob = Wrapped::of(header, Wrapper::AwsKms, None)?.to_vec();
            let kms = (*self).clone();
            let plain = within(ROLE, PATIENCE, move || {
                block_on(async {
                    let call = kms.client().await.decrypt().key_id(&kms.key_id).ciphertext_blob(Blob::new(blob));
                    let answer = call.encryption_context(CONTEXT, PURPOSE).send().await.map_err(told)?;
                    answer.plaintext.map(|plain| Zeroizing::new(plain.into_inner())).ok_or(Trouble::Nonsense)
                })
            })?;
            unwrapped(ROLE, &plain)
        }
    }

    impl AwsKms {
        async fn client(&self) -> Client {
            let mut config = aws_config::defaults(BehaviorVersion::latest())
                .timeout_config(TimeoutConfig::builder().operation_timeout(PATIENCE).build())
                .retry_config(RetryConfig::standard().with_max_attempts(2));
            if let Some(region) = &self.region {
                config = config.region(Region::new(region.clone()));
            }
            if let Some(endpoint) = &self.endpoint {
                config = config.endpoint_url(endpoint.as_str());
            }
            Client::new(&config.load().await)
        }
    }

    /// By the error's code, never its words.
    fn told<E>(error: SdkError<E>) -> Trouble
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match &error {
            SdkError::TimeoutError(_) => Trouble::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Trouble::TimedOut,
            SdkError::DispatchFailure(_) if cause::<rustls::Error>(&error).is_some() => Trouble::Untrusted,
            SdkError::DispatchFailure(failure) if failure.is_io() => Trouble::Unreachable,
            // No credentials, no region: the request could not even be signed.
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => Trouble::NoCredentials,
            SdkError::ServiceError(answer) => match answer.err().code().unwrap_or_default() {
                "NotFoundException" => Trouble::NoSuchKey,
                "IncorrectKeyException" | "InvalidCiphertextException" => Trouble::WrongKey,
                "DisabledException" | "KMSInvalidStateException" => Trouble::KeyDisabled,
                "InvalidKeyUsageException" => Trouble::Unfit,
                "AccessDeniedException"
                | "UnrecognizedClientException"
                | "ExpiredTokenException"
                | "InvalidSignatureException"
                | "IncompleteSignature"
                | "MissingAuthenticationToken" => Trouble::Denied,
                _ => Trouble::Failed,
            },
            _ => Trouble::Nonsense,
        }
    }
}
