//! Door B's desk: what a backend may serve by what it shows, credential by credential.
//!
//! Each credential is asked once at most, whatever is wanted: one of them may be an authorizer outside.

use std::sync::Arc;

use crate::auth::{Claim, Credential, Mark, Pass, Refusal};
use crate::site::Site;

use super::names::includes;
use super::{Policy, Refused, Target, forbidden};

/// One registration.
pub(super) struct Desk<'a> {
    claim: &'a Claim<'a>,
    asked: Vec<(Arc<dyn Credential>, Option<Pass>)>,
    challenges: Vec<&'static str>,
    /// Why the last one that was of the right kind didn't let it in.
    why: Option<Refusal>,
    unavailable: bool,
    /// Whether authorizers outside are asked.
    abroad: bool,
}

impl<'a> Desk<'a> {
    pub(super) fn new(claim: &'a Claim<'a>) -> Self {
        let (asked, challenges) = (Vec::new(), Vec::new());
        Self { claim, asked, challenges, why: None, unavailable: false, abroad: false }
    }

    /// The digests of the secrets that let it in.
    pub(super) fn marks(&self) -> Vec<Mark> {
        self.asked.iter().filter_map(|(_, pass)| Some(pass.as_ref()?.mark)).collect()
    }

    /// `hosts`: those at stake, where the backend itself names none.
    async fn passes(&mut self, credential: &Arc<dyn Credential>, hosts: &[String]) -> Option<Pass> {
        let known = self.asked.iter().find(|(asked, _)| Arc::ptr_eq(asked, credential));
        if let Some((_, pass)) = known {
            return pass.clone();
        }
        if credential.is_abroad() && !self.abroad {
            return None;
        }
        let named = !self.claim.hosts.is_empty() || self.claim.name.is_some();
        let claim = Claim { hosts: if named { self.claim.hosts } else { hosts }, ..*self.claim };
        let pass = match credential.check(&claim).await {
            Ok(pass) => Some(pass),
            Err(refusal) => {
                self.unavailable |= matches!(refusal, Refusal::Unavailable(_));
                if !matches!(refusal, Refusal::Absent) {
                    self.why = Some(refusal);
                }
                None
            }
        };
        if let Some(challenge) = credential.challenge()
            && !self.challenges.contains(&challenge)
        {
            self.challenges.push(challenge);
        }
        self.asked.push((credential.clone(), pass.clone()));
        pass
    }

    /// Whether it may serve the route at that place.
    async fn route(&mut self, policy: &Policy, place: usize) -> Option<Site> {
        let (route, admits) = (policy.routes.get(place)?, policy.admits.get(place)?);
        let Some(credentials) = &admits.credentials else {
            // No key is proven here, so only an open gateway lets it in.
            return admits.known.admits_generally(None).then(|| route.site.clone());
        };
        for credential in credentials {
            if self.passes(credential, &admits.names).await.is_some() {
                return Some(route.site.clone());
            }
        }
        None
    }

    /// Everything that it is good for. Authorizers outside are asked only if nobody here knows it: what is
    /// good for one route is none of another one's authorizer's business.
    pub(super) async fn anything(&mut self, policy: &Policy) -> Result<Vec<Site>, Refused> {
        let mut sites = self.everything(policy).await;
        if sites.is_empty() {
            self.abroad = true;
            sites = self.everything(policy).await;
        }
        if sites.is_empty() {
            return Err(self.refuse(policy, "anything without a name of its choice").await);
        }
        Ok(sites)
    }

    async fn everything(&mut self, policy: &Policy) -> Vec<Site> {
        let mut sites = Vec::new();
        for place in 0..policy.routes.len() {
            sites.extend(self.route(policy, place).await);
        }
        for grant in policy.name_grants() {
            let Some(pass) = self.passes(&grant.credential, &[]).await else { continue };
            let names = match pass.name {
                // It speaks of one name, which must be among the granted ones all the same.
                Some(name) => includes(grant, &name).then_some(vec![name]),
                None => grant.names.clone(),
            };
            sites.extend(names.into_iter().flatten().map(Site::Name));
        }
        sites
    }

    /// The routes that visitors of this host come to, or the dynamic name that it spells: not those of a
    /// wider pattern, which a narrower one has taken the host from.
    pub(super) async fn host(&mut self, policy: &Policy, host: &str) -> Result<Vec<Site>, Refused> {
        self.abroad = true;
        let mut sites = Vec::new();
        for target in policy.table.at(host) {
            if let Target::Route(place) = target {
                sites.extend(self.route(policy, *place).await);
            }
        }
        if sites.is_empty() {
            return match policy.name_at(host) {
                Some(name) => self.name(policy, &name).await,
                None => Err(self.refuse(policy, &format!("{host:?}")).await),
            };
        }
        Ok(sites)
    }

    /// A dynamic name.
    pub(super) async fn name(&mut self, policy: &Policy, name: &str) -> Result<Vec<Site>, Refused> {
        self.abroad = true;
        for grant in policy.name_grants() {
            if !includes(grant, name) {
                continue;
            }
            let pass = self.passes(&grant.credential, &[]).await;
            // A credential that speaks of a name is good for that one alone.
            if pass.is_some_and(|pass| pass.name.is_none_or(|own| own == name)) {
                return Ok(vec![Site::Name(name.to_owned())]);
            }
        }
        Err(self.refuse(policy, &format!("the name {name:?}")).await)
    }

    /// Tells those who are good for something else from those who are good for nothing. Nobody outside
    /// is asked for that.
    async fn refuse(&mut self, policy: &Policy, what: &str) -> Refused {
        self.abroad = false;
        for credential in policy.credentials() {
            if self.passes(credential, &[]).await.is_some() {
                return forbidden(what.to_owned());
            }
        }
        if self.unavailable {
            return Refused::Unavailable;
        }
        let why =
            self.why.as_ref().map_or("it showed no credential".to_owned(), Refusal::to_string);
        Refused::Unknown { challenges: std::mem::take(&mut self.challenges), why }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    use crate::auth::{Checking, Known};
    use crate::config::{Admission, CertificateSource, Config, NameGrant, Names, Route};
    use crate::policy::Wish;

    use super::*;

    /// Takes whoever comes, or nobody, and notes what it was asked about.
    #[derive(Debug, Default)]
    struct Judge {
        takes: bool,
        name: Option<String>,
        abroad: bool,
        asked: Mutex<Vec<Vec<String>>>,
    }

    impl Credential for Judge {
        fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
            self.asked.lock().unwrap().push(claim.hosts.to_vec());
            let pass = Pass { name: self.name.clone(), mark: Mark::of("test", &[]) };
            let verdict = if self.takes { Ok(pass) } else { Err(Refusal::Wrong("no")) };
            Box::pin(std::future::ready(verdict))
        }

        fn keeps(&self, _: Mark) -> bool {
            self.takes
        }

        fn challenge(&self) -> Option<&'static str> {
            None
        }

        fn is_abroad(&self) -> bool {
            self.abroad
        }
    }

    fn policy(routes: &[(&str, &Arc<Judge>)], names: Option<Names>) -> Policy {
        let certificate = CertificateSource::SelfSigned { names: Vec::new() };
        let mut config = Config::new(certificate, Admission::make());
        config.names = names;
        for (name, judge) in routes {
            let mut route = Route::new(*name, vec![format!("{name}.test").parse().unwrap()]);
            route.allow = Some(vec![(*judge).clone()]);
            config.routes.push(route);
        }
        Policy::new(&config, &Arc::new(Known::default()), 1, None)
    }

    fn claim() -> Claim<'static> {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Claim { key: None, authorization: None, address, hosts: &[], name: None }
    }

    /// C5, C7: what one route's backend shows is none of another one's authorizer's business.
    #[tokio::test]
    async fn an_authorizer_outside_hears_only_of_what_concerns_it() {
        let here = Arc::new(Judge { takes: true, ..Judge::default() });
        let outside = Arc::new(Judge { takes: true, abroad: true, ..Judge::default() });
        let both = policy(&[("a", &here), ("b", &outside)], None);
        let (_, sites) = both.register(&claim(), &Wish::Any).await.unwrap();
        assert_eq!(sites, [Site::Route("a".into())], "known here");
        let unknown = both.register(&claim(), &Wish::Hosts(vec!["c.test".into()])).await;
        assert!(matches!(unknown, Err(Refused::Forbidden(_))), "{unknown:?}");
        assert!(outside.asked.lock().unwrap().is_empty());

        let alone = policy(&[("b", &outside)], None);
        let (_, sites) = alone.register(&claim(), &Wish::Any).await.unwrap();
        assert_eq!(sites, [Site::Route("b".into())]);
        assert_eq!(*outside.asked.lock().unwrap(), [["b.test".to_owned()]], "asked with its hosts");
    }

    /// C5: a token that speaks of a name is good for it only where that name is granted.
    #[tokio::test]
    async fn a_name_must_be_granted_though_the_credential_speaks_of_it() {
        let judge = Arc::new(Judge { takes: true, name: Some("alice".into()), ..Judge::default() });
        for (granted, fine) in [(Some(vec!["bob".to_owned()]), false), (None, true)] {
            let grant = NameGrant { names: granted, credential: judge.clone() };
            let policy = policy(&[], Some(Names::new("names.test", vec![grant])));
            for wish in [Wish::Any, Wish::Name("alice".into())] {
                assert_eq!(policy.register(&claim(), &wish).await.is_ok(), fine, "{wish:?}");
            }
            assert!(policy.register(&claim(), &Wish::Name("bob".into())).await.is_err());
        }
    }
}
