//! Which SPIFFE ID pods of a service account have, and the way back.

use crate::spiffe::{SpiffeError, SpiffeId, TrustDomain};

use super::wrong::Wrong;

/// The SPIFFE ID of pods, with places for what they differ in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityTemplate {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Fixed(String),
    Namespace,
    ServiceAccount,
}

const DOMAIN: &str = "spiffe://{trustDomain}/";

impl Default for IdentityTemplate {
    /// As the controller has it: `spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}`.
    fn default() -> Self {
        let fixed = |text: &str| Segment::Fixed(text.to_owned());
        Self {
            segments: vec![fixed("ns"), Segment::Namespace, fixed("sa"), Segment::ServiceAccount],
        }
    }
}

impl IdentityTemplate {
    /// # Errors
    /// If pods of two accounts would be the same, or no SPIFFE ID can come of it.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(format!(
                "`{text}` must be like `spiffe://{{trustDomain}}/ns/{{namespace}}/sa/{{serviceAccount}}`, each of these once and as a whole segment"
            ))
        };
        let path = text.strip_prefix(DOMAIN).ok_or_else(wrong)?;
        let segments: Vec<_> = path.split('/').map(segment).collect();
        let count = |wanted: &Segment| segments.iter().filter(|segment| *segment == wanted).count();
        let template = Self { segments: segments.clone() };
        let can_be = || {
            let domain = "example.org".parse().ok()?;
            template.id(&domain, "a", "b").ok()
        };
        match count(&Segment::Namespace) == 1
            && count(&Segment::ServiceAccount) == 1
            && can_be().is_some()
        {
            true => Ok(template),
            false => Err(wrong()),
        }
    }

    /// The SPIFFE ID of pods with a service account.
    ///
    /// # Errors
    /// If the names are such as no SPIFFE ID can have.
    pub fn id(
        &self,
        domain: &TrustDomain,
        namespace: &str,
        account: &str,
    ) -> Result<SpiffeId, SpiffeError> {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Fixed(text) => text,
            Segment::Namespace => namespace,
            Segment::ServiceAccount => account,
        });
        let path: Vec<&str> = segments.collect();
        format!("spiffe://{domain}/{}", path.join("/")).parse()
    }

    /// The namespace and the service account that an ID is of, if it is one of this trust domain that the template makes.
    #[must_use]
    pub fn account<'i>(
        &self,
        domain: &TrustDomain,
        id: &'i SpiffeId,
    ) -> Option<(&'i str, &'i str)> {
        if id.trust_domain() != domain {
            return None;
        }
        let path = id.as_str().strip_prefix("spiffe://")?.split_once('/')?.1;
        let found: Vec<&str> = path.split('/').collect();
        if found.len() != self.segments.len() {
            return None;
        }
        let (mut namespace, mut account) = (None, None);
        for (segment, found) in self.segments.iter().zip(found) {
            match segment {
                Segment::Fixed(text) if text != found => return None,
                Segment::Fixed(_) => {}
                Segment::Namespace => namespace = Some(found),
                Segment::ServiceAccount => account = Some(found),
            }
        }
        Some((namespace?, account?))
    }
}

fn segment(text: &str) -> Segment {
    match text {
        "{namespace}" => Segment::Namespace,
        "{serviceAccount}" => Segment::ServiceAccount,
        text => Segment::Fixed(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_account_has_an_identity_of_its_own() {
        for good in [
            "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}",
            "spiffe://{trustDomain}/{serviceAccount}/{namespace}",
        ] {
            assert!(IdentityTemplate::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "spiffe://example.org/ns/{namespace}/sa/{serviceAccount}",
            "spiffe://{trustDomain}/ns/{namespace}",
            "spiffe://{trustDomain}/sa/{serviceAccount}",
            "spiffe://{trustDomain}/{namespace}-{serviceAccount}",
            "spiffe://{trustDomain}/{namespace}/{namespace}/{serviceAccount}",
            "spiffe://{trustDomain}/{namespace}/../{serviceAccount}",
            "spiffe://{trustDomain}/{namespace}/{pod}/{serviceAccount}",
            "spiffe://{trustDomain}//{namespace}/{serviceAccount}",
        ] {
            assert!(IdentityTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_is_what_the_controller_issues() {
        let domain = "example.org".parse().unwrap();
        let of_controller = crate::kubernetes::spiffe_id(&domain, "shop", "web").unwrap();
        assert_eq!(IdentityTemplate::default().id(&domain, "shop", "web").unwrap(), of_controller);
        let written = "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}";
        assert_eq!(IdentityTemplate::parse(written).unwrap(), IdentityTemplate::default());
    }

    proptest! {
        #[test]
        fn the_way_back_is_the_way(namespace in "[a-z0-9-]{1,20}", account in "[a-z0-9.-]{0,20}[a-z]", flip: bool) {
            let text = match flip {
                true => "spiffe://{trustDomain}/x/{serviceAccount}/{namespace}",
                false => "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}",
            };
            let template = IdentityTemplate::parse(text).unwrap();
            let [domain, other] = ["example.org", "example.com"].map(|name| name.parse().unwrap());
            let id = template.id(&domain, &namespace, &account).unwrap();
            prop_assert_eq!(template.account(&domain, &id), Some((&*namespace, &*account)));
            prop_assert_eq!(template.account(&other, &id), None);
        }
    }
}
